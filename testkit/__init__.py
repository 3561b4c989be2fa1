"""Servers, processes and clients that tests, chaos and benchmarks start and drive."""
