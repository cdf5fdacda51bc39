"""Minsheng: conversational intake of citizens' appeals."""
