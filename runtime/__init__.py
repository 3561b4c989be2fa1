"""Infrastructure without business terms: settings, connections, subscriptions, wake-ups, logs, metrics, processes."""
