"""Feed of one web process: reader, buffer and streams."""
