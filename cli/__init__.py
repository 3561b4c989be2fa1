"""The `coordinator` command: composes the rooms into processes and speaks to people."""
