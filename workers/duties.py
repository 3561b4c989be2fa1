"""Duties: each once, with its interval, as an actor's work and as the ticker's."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from models.expiry.duties import duty_due
from runtime.names import Actor
from runtime.postgres import transaction
from workers.broadcast import broadcast, sweep_broadcast
from workers.callbacks import resume_parents, sweep_callbacks
from workers.context import WorkerContext
from workers.dispatch import dispatch, sweep_dispatch
from workers.expiry import expire_due
from workers.retention import retire_due
from workers.upkeep import upkeep_due

UPKEEP_SECONDS: Final = 900.0
# Retain by the ten minutes: history is kept for days, and little is left for each pass.
RETENTION_SECONDS: Final = 600.0


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
        _scheduled(context, Actor.EXPIRE, expiry, expire_due),
        _scheduled(context, Actor.UPKEEP, UPKEEP_SECONDS, upkeep_due),
        _scheduled(context, Actor.RETENTION, RETENTION_SECONDS, retire_due),
    ]


def _scheduled(
    context: WorkerContext, actor: Actor, interval: float, if_older: Callable[[WorkerContext, float], bool]
) -> Duty:
    return Duty(actor, interval, partial(if_older, context, interval / 2), partial(if_older, context))


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

    return Duty(actor, interval, on_message, partial(if_older, context))
