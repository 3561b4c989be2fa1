"""Tables, statuses and the set-based verbs that change them: the whole state of the coordinator."""
