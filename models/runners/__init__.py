"""Verbs on runners: register, heartbeat, leave, list."""
