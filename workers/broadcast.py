from typing import Final

from models.expiry.duties import duty_due
from models.feed.sequence import PASS_EVENTS, lower_numbering_watermark, read_head, sequence_feed
from runtime.logs import log
from runtime.metrics import SEQUENCED
from runtime.names import Actor
from runtime.postgres import autocommit, transaction
from runtime.pubsub import publish_head
from runtime.redis_client import FAILED
from workers.context import WorkerContext

logger = log(__name__)

PASSES: Final = 50
LATE_EVENTS: Final = "late events"
LATE_EVENTS_SECONDS: Final = 60.0


def broadcast(context: WorkerContext) -> None:
    """Number all committed events; concurrent calls are safe, since `sequence_feed` runs one at a time.

    Each pass is published at once. A web process that misses the message finds the events within half a second.
    """
    with autocommit(context.engine) as connection:
        for _ in range(PASSES):
            numbered = sequence_feed(connection)
            if numbered:
                SEQUENCED.labels("actor").inc(numbered)
                _publish_head(context, read_head(connection).position)
            if numbered < PASS_EVENTS:
                return
    context.wakeups.notify(Actor.BROADCAST)


def sweep_broadcast(context: WorkerContext, older_than: float) -> bool:
    with transaction(context.engine) as connection:
        due = duty_due(connection, Actor.BROADCAST, older_than)
        if due and duty_due(connection, LATE_EVENTS, LATE_EVENTS_SECONDS):
            lower_numbering_watermark(connection)
    if due:
        broadcast(context)
    return due


def _publish_head(context: WorkerContext, position: int) -> None:
    try:
        publish_head(context.redis, position)
    except FAILED as error:
        logger.warning("feed head not published", error=str(error))
