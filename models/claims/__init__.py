"""Claims: which runner gets which run, through polls and dispatch."""
