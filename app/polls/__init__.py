"""Parked polls and their wake-ups."""
