"""Infrastructure without business terms: settings, connections, pub/sub, wake-ups, logs, metrics, processes."""
