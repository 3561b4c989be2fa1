"""HTTP server of web replicas: uvicorn with the protocol limits of this service."""
