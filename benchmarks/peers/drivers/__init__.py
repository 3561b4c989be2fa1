"""Drivers, a module for each peer. They run in the peer's environment and import its packages."""
