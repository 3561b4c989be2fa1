"""Parked polls and what wakes them."""
