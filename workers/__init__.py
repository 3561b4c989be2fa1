"""Dramatiq actors and their ticker. Messages carry no facts: every actor reads its work from Postgres."""
