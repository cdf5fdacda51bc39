"""rasa-sdk actions: slots in, one call to bot.tickets, utterances and events out.

The same classes run inside the service (bot/embedded.py) and under `rasa run actions`. They never import Flask or WeChat.
"""
