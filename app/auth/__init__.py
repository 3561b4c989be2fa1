"""Credentials, permissions and limits of callers."""
