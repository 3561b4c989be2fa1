"""Resumes parents with the results of their children, and tells those who have to do with the new runs."""

from typing import Final

from models.callbacks.resume_parents import deliver_results
from models.expiry.duties import duty_due
from runtime.metrics import PARENTS_RESUMED
from runtime.names import Actor
from runtime.postgres import transaction
from workers.context import WorkerContext

PARENTS_A_PASS: Final = 100


def resume_parents(context: WorkerContext) -> None:
    """One pass over the parents that are due. Twice, or never, is as good: results are rows, and each is delivered in
    the transaction that notes it as delivered.
    """
    with transaction(context.engine) as connection:
        delivered = deliver_results(connection, limits=context.limits, at_most=PARENTS_A_PASS)
    if delivered.runs:
        PARENTS_RESUMED.inc(len(delivered.runs))
        context.wakeups.notify(Actor.DISPATCH)
        context.wakeups.notify(Actor.BROADCAST)
    if delivered.again:
        context.wakeups.notify(Actor.CALLBACKS)


def sweep_callbacks(context: WorkerContext, older_than: float) -> bool:
    """A pass if none was swept for `older_than` seconds; whether there was one."""
    with transaction(context.engine) as connection:
        due = duty_due(connection, Actor.CALLBACKS, older_than)
    if due:
        resume_parents(context)
    return due
