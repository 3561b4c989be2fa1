"""Loop of a runner: registration, polls, heartbeats, reports and drain, whatever executes the runs.

Used by `coordinator_client.tasks` for functions and by the command `coordinator runner` for processes.
"""
