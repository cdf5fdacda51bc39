"""Minsheng: conversational intake of citizens' appeals."""

from bot.light_rasa import leave_out_tensorflow

leave_out_tensorflow()
