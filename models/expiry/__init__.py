"""Deadlines, lost runners, our own outages and clean-up."""
