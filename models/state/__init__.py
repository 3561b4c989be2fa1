"""Locks, transitions and visibility of runs and sessions: what every verb is built of."""
