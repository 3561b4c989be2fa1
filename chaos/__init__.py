"""Fault injection on a whole cluster under load, with a verdict on each promise."""
