"""Runner on other machines: an HTTP client, a poll loop, an executor of commands."""
