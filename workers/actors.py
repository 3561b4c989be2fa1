import time
from collections.abc import Callable, Iterable
from typing import Final

import dramatiq
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from runtime.logs import log
from runtime.metrics import ACTOR_SECONDS
from runtime.names import Actor, stored_queue
from runtime.postgres import is_item_fault, is_retryable
from workers.broker import MAX_AGE_MILLISECONDS, WakingBroker
from workers.duties import Duty

logger = log(__name__)

# Run smaller numbers first among fetched messages: runners wait for a dispatch, upkeep may be late.
PRIORITY: Final = {
    Actor.DISPATCH: 0,
    Actor.BROADCAST: 1,
    Actor.CALLBACKS: 2,
    Actor.EXPIRE: 3,
    Actor.SCHEDULES: 4,
    Actor.STATS: 5,
    Actor.WEBHOOKS: 6,
    Actor.BULK: 7,
    Actor.UPKEEP: 8,
    Actor.RETENTION: 9,
}


def declare_actors(broker: WakingBroker, duties: Iterable[Duty]) -> None:
    """Declare an actor for each duty: its messages are hints, so they are not retried and expire after 60 s."""
    for duty in duties:
        declare = dramatiq.actor(
            actor_name=duty.actor,
            queue_name=stored_queue(duty.actor),
            priority=PRIORITY[duty.actor],
            broker=broker,
            max_retries=0,
            max_age=MAX_AGE_MILLISECONDS,
        )
        declare(_work(duty))


def _work(duty: Duty) -> Callable[[], None]:
    def work() -> None:
        attempt(duty.actor, duty.on_message)

    return work


def attempt(actor: Actor, work: Callable[[], object]) -> None:
    """Run the work; log a warning if Postgres is away or rows are locked, since the next tick tries again.

    Other errors are raised.
    """
    began = time.monotonic()
    outcome = "failed"
    try:
        work()
        outcome = "done"
    except SQLAlchemyError as error:
        if not (is_retryable(error) or is_item_fault(error) or isinstance(error, PoolTimeout)):
            raise
        logger.warning("work postponed to the next tick", actor=actor, error=str(error).partition("\n")[0])
    finally:
        ACTOR_SECONDS.labels(actor, outcome).observe(time.monotonic() - began)
