import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from models.expiry.duties import duty_due, record_done
from runtime.names import Actor
from runtime.postgres import transaction
from workers.broadcast import broadcast, sweep_broadcast
from workers.bulk import execute_bulks, sweep_bulks
from workers.callbacks import resume_parents, sweep_callbacks
from workers.context import WorkerContext
from workers.dispatch import dispatch, sweep_dispatch
from workers.expiry import expire_due
from workers.retention import retire_due
from workers.schedules import decide_schedules_due
from workers.stats import roll_up_due
from workers.upkeep import upkeep_due
from workers.webhooks import match_due

UPKEEP_SECONDS: Final = 900.0
# Retain by the ten minutes: history is kept for days, and little is left for each pass.
RETENTION_SECONDS: Final = 600.0
STATS_SECONDS: Final = 2.0
SCHEDULES_SECONDS: Final = 1.0
WEBHOOKS_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Duty:
    """Periodic work. `on_message` is what its actor does; `if_older(seconds)` does the same unless it was done within
    `seconds`, and returns whether it did.
    """

    actor: Actor
    interval: float
    on_message: Callable[[], object]
    if_older: Callable[[float], bool]


def duties_of(context: WorkerContext) -> list[Duty]:
    """Return all duties. A message of the slot's winner comes about one interval after the last, hence half of it."""
    sweep = context.settings.sweep_seconds
    expiry = context.settings.expiry_seconds
    return [
        _on_demand(context, Actor.DISPATCH, sweep, dispatch, sweep_dispatch),
        _on_demand(context, Actor.BROADCAST, sweep, broadcast, sweep_broadcast),
        _on_demand(context, Actor.CALLBACKS, sweep, resume_parents, sweep_callbacks),
        _on_demand(context, Actor.BULK, sweep, execute_bulks, sweep_bulks),
        _scheduled(context, Actor.EXPIRE, expiry, expire_due),
        _scheduled(context, Actor.SCHEDULES, SCHEDULES_SECONDS, decide_schedules_due),
        _scheduled(context, Actor.UPKEEP, UPKEEP_SECONDS, upkeep_due),
        _scheduled(context, Actor.RETENTION, RETENTION_SECONDS, retire_due),
        _scheduled(context, Actor.STATS, STATS_SECONDS, roll_up_due),
        _scheduled(context, Actor.WEBHOOKS, WEBHOOKS_SECONDS, match_due),
    ]


def _scheduled(
    context: WorkerContext, actor: Actor, interval: float, if_older: Callable[[WorkerContext, float], bool]
) -> Duty:
    if_older = _recorded(actor, if_older)
    return Duty(actor, interval, partial(if_older, context, interval / 2), partial(if_older, context))


def _recorded(actor: Actor, if_older: Callable[[WorkerContext, float], bool]) -> Callable[[WorkerContext, float], bool]:
    """Return the duty that records its end, too: one that fails every time begins every time."""

    def work(context: WorkerContext, older_than: float) -> bool:
        did = if_older(context, older_than)
        if did:
            with transaction(context.engine) as connection:
                record_done(connection, actor)
        return did

    return work


def _on_demand(
    context: WorkerContext,
    actor: Actor,
    interval: float,
    always: Callable[[WorkerContext], None],
    if_older: Callable[[WorkerContext, float], bool],
) -> Duty:
    """Return a duty that commits request too: done for every message, recorded as done every half interval."""
    recorded_at = -interval

    def on_message() -> None:
        nonlocal recorded_at
        always(context)
        # Record it after the pass: a runner may wait for the pass, nothing waits for the record.
        if time.monotonic() - recorded_at >= interval / 2:
            recorded_at = time.monotonic()
            with transaction(context.engine) as connection:
                duty_due(connection, actor, interval / 2)
                record_done(connection, actor)

    return Duty(actor, interval, on_message, partial(_recorded(actor, if_older), context))
