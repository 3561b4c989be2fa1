"""Verbs on sessions."""
