"""Description of the API in /openapi.json."""
