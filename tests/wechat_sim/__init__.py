"""The whole WeChat platform for one official account, on loopback: for demonstrations (`make wechat-sim`) and for tests.

It knows of the service what the platform knows: the address of its callback, and what it answers and asks.
"""
