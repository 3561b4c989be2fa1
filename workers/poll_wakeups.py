from collections.abc import Collection

from models.claims.parking import poll_holders
from runtime.logs import log
from runtime.metrics import POLL_WAKEUPS
from runtime.postgres import autocommit
from runtime.pubsub import publish_rechecks
from runtime.redis_client import FAILED
from workers.context import WorkerContext

logger = log(__name__)


def wake_polls(context: WorkerContext, runner_ids: Collection[str]) -> None:
    """Have the instances that hold polls of the runners re-check them now. Call it after the commit of the stops.

    The periodic re-check makes up for a lost wake-up.
    """
    if not runner_ids:
        return
    with autocommit(context.engine) as connection:
        holders = poll_holders(connection, runner_ids)
    number = sum(map(len, holders.values()))
    try:
        publish_rechecks(context.redis, holders)
        POLL_WAKEUPS.labels("sent").inc(number)
    except FAILED as error:
        POLL_WAKEUPS.labels("failed").inc(number)
        logger.warning("polls not woken; stops left to the re-check", runners=number, error=str(error))
