from typing import Final

from models.expiry.duties import duty_due
from models.expiry.expire import ExpireResult, expire
from runtime.metrics import EXPIRED
from runtime.names import Actor
from runtime.postgres import transaction
from workers.context import WorkerContext
from workers.poll_wakeups import wake_polls

PASSES: Final = 20


def expire_due(context: WorkerContext, older_than: float) -> bool:
    """Run expiry unless it ran within `older_than` seconds; return whether it ran.

    By state, not by edge, so that the next tick makes up for a lost one.
    """
    with transaction(context.engine) as connection:
        # Record the run in the same transaction: its time tells our own outages from silence of the runners.
        if not duty_due(connection, Actor.EXPIRE, older_than):
            return False
        result = expire(connection, limits=context.limits)
    _notify(context, result)
    for _ in range(PASSES):
        if not result.again:
            break
        with transaction(context.engine) as connection:
            result = expire(connection, limits=context.limits)
        _notify(context, result)
    return True


def _notify(context: WorkerContext, result: ExpireResult) -> None:
    for kind, count in result.counts.items():
        EXPIRED.labels(kind).inc(count)
    for name in result.actors:
        context.wakeups.notify(Actor(name))
    wake_polls(context, result.runners_to_notify)
