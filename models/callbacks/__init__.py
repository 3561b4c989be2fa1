"""Callbacks: resume parents with the results of their children."""
