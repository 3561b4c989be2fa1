"""Drain, readiness and client disconnects of one web process."""
