"""Feed of events: append, number, read, drop."""
