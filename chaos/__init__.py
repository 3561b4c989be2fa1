"""Faults on a whole cluster under load, and a verdict on each promise."""
