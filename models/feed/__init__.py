"""The feed of events: append, number, read, drop."""
