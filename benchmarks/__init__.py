"""The rows of docs/performance.md, measured on a cluster of their own."""
