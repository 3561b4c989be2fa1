from functools import partial
from typing import Final

from models.expiry.cleanup import upkeep
from runtime.names import Actor
from workers.context import WorkerContext
from workers.passes import is_due, passes

PASSES: Final = 200


def upkeep_due(context: WorkerContext, older_than: float) -> bool:
    """Run upkeep in bounded transactions unless it began within `older_than` seconds; return whether it ran."""
    if not is_due(context, Actor.UPKEEP, older_than):
        return False
    work = partial(upkeep, idempotency_seconds=context.settings.idempotency_seconds, limits=context.limits)
    for more in passes(context, work, PASSES):
        if not more:
            break
    return True
