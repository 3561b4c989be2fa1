"""Arguments of verbs, made from request bodies."""
