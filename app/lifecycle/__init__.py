"""Drain, readiness and hang-ups of one web process."""
