"""Revisions of the schema: each expands or contracts, never both."""
