"""Drains of runners as an administrator makes them, and as replicas of the last release see them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from models.core.errors import CoordinatorError
from models.runners.drain import Drained, SetDrain, open_transactions, set_drains
from runtime.postgres import sync_engine
from runtime.settings import Settings
from tests.support.db_verbs import DbVerbs

PATIENT = {"lock_timeout_seconds": 20, "statement_timeout_seconds": 60, "idle_in_transaction_seconds": 60}


@contextmanager
def our_engine(settings: Settings) -> Iterator[Engine]:
    """Open connections that are taken for those of our processes: the end of a drain waits for their transactions."""
    engine = sync_engine(settings.model_copy(update=PATIENT), pool_size=40, name="coordinator test")
    try:
        yield engine
    finally:
        engine.dispose()


def drain(db: DbVerbs, runner_id: str, reason: str | None = None) -> Drained:
    return accepted(db.do(set_drains, [SetDrain(runner_id, draining=True, reason=reason)])[0])


def undrain(db: DbVerbs, runner_id: str) -> Drained:
    return accepted(db.do(set_drains, [SetDrain(runner_id, draining=False)])[0])


def accepted(result: Drained | CoordinatorError) -> Drained:
    assert isinstance(result, Drained), result
    return result


def wait_for_claims(db: DbVerbs, find: Callable[..., frozenset[str]] = open_transactions) -> None:
    """Wait as the answer of a drain does."""
    left = db.do(find)
    while left:
        time.sleep(0.002)
        left &= db.do(find)


def drain_and_wait(db: DbVerbs, runner_id: str) -> set[str]:
    """Do all that a request does; return the runs that were claimed for the runner by then."""
    drain(db, runner_id)
    wait_for_claims(db)
    return claimed_by(db, runner_id)


def claimed_by(db: DbVerbs, runner_id: str) -> set[str]:
    return {row.run_id for row in db.rows("SELECT run_id FROM runs WHERE runner_id = :r", r=runner_id)}


def registered_by_the_last_release(db: DbVerbs, runner_id: str, capacity: int | None = None) -> None:
    """Write the capacity that the runner tells, as a replica does that knows of no drain."""
    db.rows("UPDATE runners SET capacity = :c WHERE runner_id = :r", c=capacity, r=runner_id)


def seen_by_the_last_release(db: DbVerbs, runner_id: str) -> None:
    """Take away what claims of that release do not read."""
    db.rows("UPDATE runners SET draining_since = NULL, drain_reason = NULL WHERE runner_id = :r", r=runner_id)
