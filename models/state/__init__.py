"""Locks, transitions and visibility of runs and sessions, used by every verb."""
