"""Measurements of the rows of docs/performance.md, on a cluster of their own."""
