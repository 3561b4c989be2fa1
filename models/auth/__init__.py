"""API keys, tickets and the audit log."""
