"""The public client of the coordinator's HTTP API: typed, and importing nothing else of this project."""
