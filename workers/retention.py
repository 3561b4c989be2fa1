"""Drops history past its time, and finished sessions that nobody wants to be kept any longer."""

from typing import Final

from models.expiry.duties import duty_due
from models.feed.retention import retire_events, retire_sessions
from runtime.logs import log
from runtime.names import Actor
from runtime.postgres import transaction
from workers.room import Room

logger = log(__name__)

# What is left after so many small transactions waits for the next time.
PASSES: Final = 1000


def retire_due(room: Room, older_than: float) -> bool:
    """Drop what is past its time, unless that was done within `older_than` seconds; whether it was done now.

    Cut off anywhere it leaves nothing half-done: each transaction is whole in itself.
    """
    with transaction(room.engine) as connection:
        if not duty_due(connection, Actor.RETENTION, older_than):
            return False
    events = _retire_events(room)
    sessions = _retire_sessions(room)
    if events or sessions:
        logger.info("past their time", events=events, sessions=sessions)
    return True


def _retire_events(room: Room) -> int:
    total = 0
    for _ in range(PASSES):
        with transaction(room.engine) as connection:
            dropped = retire_events(connection, older_than_days=room.settings.event_retention_days)
        if not dropped:
            break
        total += dropped
    return total


def _retire_sessions(room: Room) -> int:
    if room.settings.retention_days is None:
        return 0
    # A younger one still has events: it need not be looked at.
    days = max(room.settings.retention_days, room.settings.event_retention_days)
    total = 0
    after = None
    for _ in range(PASSES):
        with transaction(room.engine) as connection:
            walked = retire_sessions(connection, older_than_days=days, after=after)
        if walked.removed:
            room.ringer.ring(Actor.BROADCAST)
        total += walked.removed
        after = walked.at
        if after is None:
            break
    return total
