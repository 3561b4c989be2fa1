"""HTTP requests and responses: bodies, errors, pages, JSON."""
