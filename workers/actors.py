"""The actors: every duty under its name, with no retries, since a sweep stands behind each."""

import time
from collections.abc import Callable, Iterable
from typing import Final

import dramatiq
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from runtime.logs import log
from runtime.metrics import ACTOR_SECONDS
from runtime.names import QUEUE_OF, Actor
from runtime.postgres import is_item_fault, is_retryable
from workers.broker import MAX_AGE_MILLISECONDS, WakingBroker
from workers.duties import Duty

logger = log(__name__)

# Smaller goes first among what a worker has fetched: a runner waits for a dispatch, nobody for upkeep.
PRIORITY: Final = {
    Actor.DISPATCH: 0,
    Actor.BROADCAST: 1,
    Actor.CALLBACKS: 2,
    Actor.EXPIRE: 3,
    Actor.UPKEEP: 4,
    Actor.RETENTION: 5,
}


def declare_actors(broker: WakingBroker, duties: Iterable[Duty]) -> None:
    """Make an actor of each duty: a message of it is a hint, so it is not repeated and soon too old."""
    for duty in duties:
        declare = dramatiq.actor(
            actor_name=duty.actor,
            queue_name=QUEUE_OF[duty.actor],
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
    """Do it; that Postgres is away, or somebody else held the locks, is a warning: the next tick tries again.

    Whatever else goes wrong is raised.
    """
    began = time.monotonic()
    outcome = "failed"
    try:
        work()
        outcome = "done"
    except SQLAlchemyError as error:
        if not (is_retryable(error) or is_item_fault(error) or isinstance(error, PoolTimeout)):
            raise
        logger.warning("not done this time", actor=actor, error=str(error).partition("\n")[0])
    finally:
        ACTOR_SECONDS.labels(actor, outcome).observe(time.monotonic() - began)
