"""Rasa graph components that read petitions. They own no path outside the model, no network, no database."""
