from collections.abc import Callable
from functools import partial
from typing import Final

from models.feed.retention import retire_events, retire_sessions
from models.schedules.cleanup import retire_fires
from models.webhooks.deliveries import retire_deliveries
from runtime.logs import log
from runtime.names import Actor
from runtime.postgres import transaction
from workers.context import WorkerContext
from workers.passes import is_due, passes

logger = log(__name__)

PASSES: Final = 1000


def retire_due(context: WorkerContext, older_than: float) -> bool:
    """Run retention unless it ran within `older_than` seconds; return whether it ran.

    Safe to cut off anywhere: each transaction is complete in itself.
    """
    if not is_due(context, Actor.RETENTION, older_than):
        return False
    events = _retire(context, retire_events)
    deliveries = _retire(context, retire_deliveries)
    sessions = _retire_sessions(context)
    fires = _retire(context, retire_fires)
    if events or sessions or deliveries or fires:
        logger.info("history retired", events=events, sessions=sessions, deliveries=deliveries, fires=fires)
    return True


def _retire(context: WorkerContext, retire: Callable[..., int]) -> int:
    work = partial(retire, older_than_days=context.settings.event_retention_days)
    total = 0
    for dropped in passes(context, work, PASSES):
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
