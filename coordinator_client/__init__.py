"""Typed client of the coordinator's HTTP API. Needs httpx and httpx-sse, and nothing else of this project."""
