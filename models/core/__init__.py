"""Ids, callers, limits, errors and statuses: common to all verbs, without a database."""
