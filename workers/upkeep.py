"""Upkeep: deletes old idempotency keys, unused demand profiles, events of deleted sessions and other leftovers."""

from typing import Final

from models.expiry.cleanup import upkeep
from models.expiry.duties import duty_due
from runtime.names import Actor
from runtime.postgres import transaction
from workers.context import WorkerContext

# Leave what remains after so many to the next time.
PASSES: Final = 200


def upkeep_due(context: WorkerContext, older_than: float) -> bool:
    """Run upkeep in bounded transactions unless it ran within `older_than` seconds; return whether it ran."""
    with transaction(context.engine) as connection:
        if not duty_due(connection, Actor.UPKEEP, older_than):
            return False
    for _ in range(PASSES):
        with transaction(context.engine) as connection:
            more = upkeep(connection, idempotency_seconds=context.settings.idempotency_seconds, limits=context.limits)
        if not more:
            break
    return True
