"""Retention: drops events past their time, and finished sessions if they are not kept for ever."""

from typing import Final

from models.expiry.duties import duty_due
from models.feed.retention import retire_events, retire_sessions
from runtime.logs import log
from runtime.names import Actor
from runtime.postgres import transaction
from workers.context import WorkerContext

logger = log(__name__)

# Leave what remains after so many small transactions to the next time.
PASSES: Final = 1000


def retire_due(context: WorkerContext, older_than: float) -> bool:
    """Run retention unless it ran within `older_than` seconds; return whether it ran.

    Safe to cut off anywhere: each transaction is complete in itself.
    """
    with transaction(context.engine) as connection:
        if not duty_due(connection, Actor.RETENTION, older_than):
            return False
    events = _retire_events(context)
    sessions = _retire_sessions(context)
    if events or sessions:
        logger.info("history retired", events=events, sessions=sessions)
    return True


def _retire_events(context: WorkerContext) -> int:
    total = 0
    for _ in range(PASSES):
        with transaction(context.engine) as connection:
            dropped = retire_events(connection, older_than_days=context.settings.event_retention_days)
        if not dropped:
            break
        total += dropped
    return total


def _retire_sessions(context: WorkerContext) -> int:
    if context.settings.retention_days is None:
        return 0
    # Skip younger sessions, which still have events.
    days = max(context.settings.retention_days, context.settings.event_retention_days)
    total = 0
    after = None
    for _ in range(PASSES):
        with transaction(context.engine) as connection:
            walked = retire_sessions(connection, older_than_days=days, after=after)
        if walked.removed:
            context.wakeups.notify(Actor.BROADCAST)
        total += walked.removed
        after = walked.at
        if after is None:
            break
    return total
