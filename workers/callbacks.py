from typing import Final

from models.callbacks.resume_parents import deliver_results
from runtime.metrics import PARENTS_RESUMED
from runtime.names import Actor
from runtime.postgres import transaction
from workers.context import WorkerContext
from workers.passes import is_due

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
    if due := is_due(context, Actor.CALLBACKS, older_than):
        resume_parents(context)
    return due
