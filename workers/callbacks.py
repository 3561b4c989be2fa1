"""Resumes parents with the results of their children, and notifies the actors concerned by the new runs."""

from typing import Final

from models.callbacks.resume_parents import deliver_results
from models.expiry.duties import duty_due
from runtime.metrics import PARENTS_RESUMED
from runtime.names import Actor
from runtime.postgres import transaction
from workers.context import WorkerContext

PARENTS_A_PASS: Final = 100


def resume_parents(context: WorkerContext) -> None:
    """Do one pass over the parents that are due. Idempotent: results are rows, each marked in the transaction that
    delivers it.
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
    with transaction(context.engine) as connection:
        due = duty_due(connection, Actor.CALLBACKS, older_than)
    if due:
        resume_parents(context)
    return due
