"""Bodies of requests as the verbs' arguments."""
