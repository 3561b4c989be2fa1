from collections.abc import Callable, Iterator
from typing import TypeVar

from sqlalchemy import Connection

from models.expiry.duties import duty_due
from runtime.postgres import transaction
from workers.context import WorkerContext

Result = TypeVar("Result")


def is_due(context: WorkerContext, duty: str, older_than: float) -> bool:
    """Record the duty as begun in a transaction of its own; return False if it was within `older_than` seconds."""
    with transaction(context.engine) as connection:
        return duty_due(connection, duty, older_than)


def passes(context: WorkerContext, work: Callable[[Connection], Result], most: int) -> Iterator[Result]:
    """Do the work in up to `most` transactions of its own; yield each result once it is committed.

    Work that remains is left to the next time that the duty is due.
    """
    for _ in range(most):
        with transaction(context.engine) as connection:
            result = work(connection)
        yield result
