"""Ids, callers, limits, errors and statuses: what every noun is made of, without a database."""
