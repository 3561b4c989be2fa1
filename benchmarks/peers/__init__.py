"""Peers: the same work on other products, installed into environments of their own, beside ours in one run."""
