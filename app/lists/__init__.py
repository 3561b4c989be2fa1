"""Lists that are streamed page by page."""
