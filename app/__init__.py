"""The web API: HTTP requests in, HTTP responses out. Knows the wire format, writes no SQL."""
