"""Verbs on sessions: bind, patch, report the end of a process."""
