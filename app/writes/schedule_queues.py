from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from app.writes.group_commit import GroupCommit
from models.core.limits import Limits
from models.schedules.control import (
    Backfill,
    Backfilled,
    Deleted,
    DeleteSchedule,
    SetPaused,
    Trigger,
    Triggered,
    backfill_schedules,
    delete_schedules,
    set_paused,
    trigger_schedules,
)
from models.schedules.decide import Rules
from models.schedules.put import Changed, PutSchedule, put_schedules
from runtime.metrics import SCHEDULE_FIRES
from runtime.names import Actor
from runtime.settings import Settings, blueprint_variables

# Each change of a schedule takes a dozen statements.
MOST_ITEMS: Final = 10


@dataclass(frozen=True, slots=True)
class ScheduleVerbs:
    """Queues of the changes of schedules."""

    put: GroupCommit[PutSchedule, Changed]
    set_paused: GroupCommit[SetPaused, Changed]
    delete: GroupCommit[DeleteSchedule, Deleted]
    trigger: GroupCommit[Trigger, Triggered]
    backfill: GroupCommit[Backfill, Backfilled]


def schedule_verbs(
    queue: Callable[..., GroupCommit[Any, Any]],
    settings: Settings,
    limits: Limits,
    notify: Callable[[Actor], None],
    wake_polls: Callable[[Sequence[Any]], None],
) -> ScheduleVerbs:
    """Return the queues, made by ``queue``; after a commit that submitted or stopped runs others are told."""
    environment = blueprint_variables(settings)
    rules = Rules(limits, settings.demands_per_owner, settings.submissions_per_minute, environment)

    def after(_: Sequence[Any], results: Sequence[Any]) -> bool:
        decided = [result.decided for result in results if isinstance(result, Changed | Triggered | Backfilled)]
        for each in decided:
            for outcome, number in each.outcomes.items():
                SCHEDULE_FIRES.labels(outcome).inc(number)
        stopped = [stop for each in decided for stop in each.stopped]
        wake_polls(stopped)
        if any(stop.ended for stop in stopped):
            notify(Actor.CALLBACKS)
        if any(each.has_events for each in decided):
            notify(Actor.DISPATCH)
        return True

    news = (Actor.BROADCAST,)
    make = partial(queue, after=after, max_items=MOST_ITEMS)
    return ScheduleVerbs(
        put=make(partial(put_schedules, rules=rules), news),
        set_paused=make(partial(set_paused, rules=rules), news),
        delete=make(delete_schedules, news),
        trigger=make(partial(trigger_schedules, rules=rules), news),
        backfill=make(partial(backfill_schedules, rules=rules), news),
    )
