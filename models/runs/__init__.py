"""Verbs on runs: submit, report, stop, delete, list."""
