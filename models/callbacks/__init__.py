"""Parents that are resumed with the results of their children."""
