"""The feed of one web process."""
