"""The endpoints, one file per noun: parse, ride along, answer."""
