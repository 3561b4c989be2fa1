"""The web: HTTP in, HTTP out; it knows wire shapes and no SQL."""
