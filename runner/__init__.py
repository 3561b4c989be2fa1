"""What runs on other people's machines: an HTTP client, a poll loop, an executor of commands."""
