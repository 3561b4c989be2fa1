"""Deadlines, lost runners, outages and clean-up."""
