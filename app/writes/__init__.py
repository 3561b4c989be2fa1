"""Writes of the web: attempts, group commit, one queue per verb."""
