"""The truth: tables, statuses and the set-based verbs that change them."""
