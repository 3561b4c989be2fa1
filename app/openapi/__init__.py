"""The description of the API in /openapi.json."""
