"""Requests and answers: bodies, problems, pages, JSON."""
