"""The engine room: Dramatiq actors that re-read the row they are told of; it knows no HTTP."""
