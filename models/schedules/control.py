"""Pause, resume, delete, trigger and backfill schedules, as people ask for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeAlias, TypeVar

from sqlalchemy import Connection, text

from models.auth.audit import Act, audited_act, record_acts
from models.core.callers import Caller
from models.core.errors import KeyReused, NotFound, VersionConflict
from models.core.rounds import in_rounds
from models.core.statuses import FireKind, FireOutcome, Overlap
from models.schedules.decide import (
    Decided,
    Rules,
    apply_plans,
    decide_locked,
    move_on,
    read_states,
    sharing_quotas,
)
from models.schedules.fires import NewFire, add_fires
from models.schedules.keys import ChangeKey, is_repeat, store_keys
from models.schedules.plan import Decision, Plan, decide, look_ahead, next_look, plan_schedule
from models.schedules.put import Changed
from models.schedules.rows import COLUMNS, FIRE_SHOWN, FIRES, Fire, Schedule, clock, lock_schedules
from models.schedules.times import due_times
from models.schedules.zones import TZ_VERSION
from models.schema.sql import sql
from models.state.visibility import owner_filter

MICROSECOND: Final = timedelta(microseconds=1)
BACKFILLED: Final = "Asked for by a backfill"

Item = TypeVar("Item", "SetPaused", "DeleteSchedule", "Trigger", "Backfill")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class SetPaused:
    caller: Caller
    schedule_id: str
    paused: bool
    note: str | None = None
    expect_version: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteSchedule:
    caller: Caller
    schedule_id: str


@dataclass(frozen=True, slots=True)
class Deleted:
    schedule_id: str


@dataclass(frozen=True, slots=True)
class Trigger:
    """Fire to make now; ``request`` was made before the first try. ``overlap`` None: the schedule's own policy."""

    caller: Caller
    schedule_id: str
    request: str
    overlap: str | None = None

    @property
    def key(self) -> ChangeKey:
        return ChangeKey("trigger schedule", self.caller, self.schedule_id, self.request, self.overlap or "")


@dataclass(frozen=True, slots=True)
class Triggered:
    fire: Fire
    decided: Decided = field(default_factory=Decided)


@dataclass(frozen=True, slots=True)
class Backfill:
    """Nominal times from ``begin`` to before ``end`` to be submitted, ``most`` of them at most."""

    caller: Caller
    schedule_id: str
    begin: datetime
    end: datetime
    overlap: str = Overlap.BUFFER_ALL
    most: int = 1000


@dataclass(frozen=True, slots=True)
class Backfilled:
    """Times that a backfill submits, and how many have a run already; ``more``: beyond ``most`` there are others."""

    times: Sequence[datetime]
    already: int
    more: bool
    decided: Decided = field(default_factory=Decided)


ChangeResult: TypeAlias = Changed | NotFound | VersionConflict
TriggerResult: TypeAlias = Triggered | NotFound | KeyReused

_PAUSE: Final = sql(
    """
    UPDATE schedules s
    SET version = s.version + 1, paused = true, pause_reason = :note, updated_at = :now
    WHERE s.schedule_id = :schedule_id
    RETURNING $columns
    """,
    columns=COLUMNS,
)

# No time of the pause is decided any more.
_RESUME: Final = sql(
    """
    UPDATE schedules s
    SET version = s.version + 1, paused = false, pause_reason = NULL, failures = 0, updated_at = :now,
        decided_until = greatest(s.decided_until, :now), next_fire_at = :next_fire_at, next_at = :next_at,
        tz_version = :tz_version
    WHERE s.schedule_id = :schedule_id
    RETURNING $columns
    """,
    columns=COLUMNS,
)

_DELETE: Final = text("DELETE FROM schedules WHERE schedule_id = :schedule_id")

_REQUESTED: Final = sql(
    "SELECT $shown FROM $fires WHERE f.schedule_no = :number AND f.request = :request", shown=FIRE_SHOWN, fires=FIRES
)

# A time that was asked for before is not asked for again, whatever came of it.
_HAVE_RUNS: Final = sql("""
    SELECT fire_at FROM schedule_fires
    WHERE schedule_no = :number AND fire_at = ANY(CAST(:moments AS timestamptz[]))
      AND (outcome IN ($FIRE_SUBMITTED, $FIRE_BUFFERED) OR kind = $KIND_BACKFILL)
""")

_BUFFERED: Final = text("UPDATE schedules SET has_buffered = true WHERE schedule_no = :number")


def set_paused(conn: Connection, items: Sequence[SetPaused], *, rules: Rules) -> list[ChangeResult]:
    """Pause or resume schedules; one that is so already stays as it is. What was due before a pause is decided.

    NotFound for one that the caller may not see, VersionConflict. Acts of admins on others' are audited, as below.
    """
    return _in_rounds(items, lambda chosen: _set_paused(conn, chosen, rules))


def _set_paused(conn: Connection, items: Mapping[int, SetPaused], rules: Rules) -> dict[int, ChangeResult]:
    locked = _lock(conn, items)
    results: dict[int, ChangeResult] = {}
    changing: dict[int, Schedule] = {}
    for place, item in items.items():
        found = locked.get(place)
        if found is None:
            results[place] = NotFound("schedule", item.schedule_id)
        elif item.paused == found.paused:
            results[place] = Changed(found)
        elif item.expect_version is not None and item.expect_version != found.version:
            results[place] = VersionConflict(item.schedule_id, found.version)
        else:
            changing[place] = found
    now = clock(conn)
    decided = decide_locked(conn, list(changing.values()), rules, until=now)
    for place, schedule in changing.items():
        item = items[place]
        values = {"schedule_id": item.schedule_id, "now": now}
        if item.paused:
            row = conn.execute(_PAUSE, {**values, "note": item.note}).one()
        else:
            fire_at, look = next_look(schedule, now)
            fresh = {"next_fire_at": fire_at, "next_at": look, "tz_version": TZ_VERSION}
            row = conn.execute(_RESUME, {**values, **fresh}).one()
        act = Act.SCHEDULE_PAUSED if item.paused else Act.SCHEDULE_RESUMED
        record_acts(conn, audited_act(item.caller, act, item.schedule_id, schedule.owner))
        # The first of them has all decisions.
        results[place] = Changed(Schedule(*row), decided=decided)
        decided = Decided()
    return results


def delete_schedules(conn: Connection, items: Sequence[DeleteSchedule]) -> list[Deleted | NotFound]:
    """Delete schedules with the fires that wait; upkeep drops their decisions. Their runs stay."""
    return _in_rounds(items, lambda chosen: _delete(conn, chosen))


def _delete(conn: Connection, items: Mapping[int, DeleteSchedule]) -> dict[int, Deleted | NotFound]:
    locked = _lock(conn, items)
    results: dict[int, Deleted | NotFound] = {}
    for place, item in items.items():
        if (found := locked.get(place)) is None:
            results[place] = NotFound("schedule", item.schedule_id)
            continue
        conn.execute(_DELETE, {"schedule_id": item.schedule_id})
        record_acts(conn, audited_act(item.caller, Act.SCHEDULE_DELETED, item.schedule_id, found.owner))
        results[place] = Deleted(item.schedule_id)
    return results


def trigger_schedules(conn: Connection, items: Sequence[Trigger], *, rules: Rules) -> list[TriggerResult]:
    """Make a fire of each schedule now, paused or not, by its overlap policy. Safe to repeat with the same request.

    NotFound; KeyReused for a request that came with another policy before. What is due is decided first.
    """
    return _in_rounds(items, lambda chosen: _trigger(conn, chosen, rules))


def _trigger(conn: Connection, items: Mapping[int, Trigger], rules: Rules) -> dict[int, TriggerResult]:
    locked = _lock(conn, items)
    results: dict[int, TriggerResult] = {
        place: NotFound("schedule", item.schedule_id) for place, item in items.items() if place not in locked
    }
    wanted: dict[int, tuple[int, Schedule]] = {}
    for place, found in locked.items():
        repeats = is_repeat(conn, items[place].key)
        if isinstance(repeats, KeyReused):
            results[place] = repeats
        elif (fire := _requested(conn, found, items[place].request)) is not None:
            results[place] = Triggered(fire)
        else:
            wanted[found.schedule_no] = place, found
    decided = _fire_now(conn, {number: (items[place], found) for number, (place, found) in wanted.items()}, rules)
    for place, found in wanted.values():
        item = items[place]
        record_acts(conn, audited_act(item.caller, Act.SCHEDULE_TRIGGERED, item.schedule_id, found.owner))
        made = _requested(conn, found, item.request)
        assert made is not None  # noqa: S101 -- it was inserted, at a time of its own
        results[place] = Triggered(made, decided)
        decided = Decided()
    store_keys(conn, [items[place].key for place, _ in wanted.values()])
    return results


def _fire_now(conn: Connection, wanted: Mapping[int, tuple[Trigger, Schedule]], rules: Rules) -> Decided:
    """Decide what is due and the fires that are asked for, and submit all together."""
    decided = Decided()
    if not wanted:
        return decided
    schedules = [schedule for _, schedule in wanted.values()]
    now = clock(conn)
    states = read_states(conn, schedules, rules)
    plans: list[tuple[Schedule, Plan]] = []
    for schedule, state in sharing_quotas(schedules, states):
        item = wanted[schedule.schedule_no][0]
        if schedule.paused:
            after, next_fire_at = schedule.decided_until, schedule.next_fire_at
            plan = Plan(decided_until=after, next_fire_at=next_fire_at, next_at=schedule.next_at)
        else:
            plan = plan_schedule(schedule, state, now)
        asked = Decision(now, FireKind.MANUAL, FireOutcome.SUBMITTED, request=item.request)
        decide(plan, schedule, state, asked, item.overlap)
        if not schedule.paused:
            # It may take the place of due ones, which do not count then.
            look_ahead(schedule, plan)
        plans.append((schedule, plan))
    apply_plans(conn, plans, now, rules, decided)
    move_on(conn, plans, states)
    return decided


def backfill_schedules(conn: Connection, items: Sequence[Backfill], *, rules: Rules) -> list[Backfilled | NotFound]:
    """Buffer a fire for each nominal time that has no run; workers submit them. Safe to repeat."""
    return _in_rounds(items, lambda chosen: _backfill(conn, chosen, rules))


def _backfill(conn: Connection, items: Mapping[int, Backfill], rules: Rules) -> dict[int, Backfilled | NotFound]:
    locked = _lock(conn, items)
    results: dict[int, Backfilled | NotFound] = {
        place: NotFound("schedule", item.schedule_id) for place, item in items.items() if place not in locked
    }
    # Times up to now have their decision first.
    now = clock(conn)
    decided = decide_locked(conn, list(locked.values()), rules, until=now)
    for place, found in locked.items():
        item = items[place]
        planned = plan_backfill(conn, found, item, now)
        waits = item.overlap != Overlap.ALLOW
        fires = [
            NewFire(found, Decision(moment, FireKind.BACKFILL, FireOutcome.BUFFERED, BACKFILLED, waits=waits))
            for moment in planned.times
        ]
        added = add_fires(conn, fires, now)
        decided.outcomes[FireOutcome.BUFFERED] += len(added)
        if added:
            conn.execute(_BUFFERED, {"number": found.schedule_no})
            record_acts(conn, audited_act(item.caller, Act.SCHEDULE_BACKFILLED, item.schedule_id, found.owner))
        results[place] = Backfilled(planned.times, planned.already, planned.more, decided)
        decided = Decided()
    return results


def plan_backfill(conn: Connection, schedule: Schedule, item: Backfill, now: datetime) -> Backfilled:
    """Return what a backfill would submit, and change nothing."""
    until = min(item.end - MICROSECOND, now)
    times = due_times(schedule.times, item.begin - MICROSECOND, until, item.most + 1)
    asked = times[: item.most]
    rows = conn.execute(_HAVE_RUNS, {"number": schedule.schedule_no, "moments": asked})
    have_runs = set(rows.scalars())
    wanted = [moment for moment in asked if moment not in have_runs]
    return Backfilled(wanted, len(asked) - len(wanted), len(times) > item.most)


def _in_rounds(items: Sequence[Item], act: Callable[[Mapping[int, Item]], Mapping[int, Result]]) -> list[Result]:
    """Act on the items together, by their places; on one schedule twice in two rounds, so that each sees the former."""
    results: dict[int, Result] = {}
    for places in in_rounds(item.schedule_id for item in items):
        results |= act({place: items[place] for place in places})
    return [results[place] for place in range(len(items))]


def _lock(conn: Connection, items: Mapping[int, Item]) -> dict[int, Schedule]:
    """Lock the schedules of all items at once, before anything is decided; return those that the callers may change."""
    locked = lock_schedules(conn, [item.schedule_id for item in items.values()])
    found = {place: locked.get(item.schedule_id) for place, item in items.items()}
    return {
        place: schedule
        for place, schedule in found.items()
        if schedule is not None and owner_filter(items[place].caller) in {None, schedule.owner}
    }


def _requested(conn: Connection, schedule: Schedule, request: str) -> Fire | None:
    row = conn.execute(_REQUESTED, {"number": schedule.schedule_no, "request": request}).first()
    return None if row is None else Fire(*row)
