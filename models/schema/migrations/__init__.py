"""The schema's history: each revision expands or contracts, never both."""
