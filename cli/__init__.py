"""The `coordinator` command: composes the packages into processes, and is a client of the API."""
