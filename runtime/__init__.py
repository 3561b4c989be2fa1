"""Plumbing without business words: settings, connections, mailboxes, bells, logs, metrics, embedded servers."""
