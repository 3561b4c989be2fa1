"""Endpoints, one file per noun: parse, enqueue, answer."""
