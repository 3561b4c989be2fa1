"""Pause, resume, delete, trigger and backfill schedules, as people ask for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeAlias, TypeVar

from sqlalchemy import Connection, text

from models.auth.audit import Act, audited_act, record_acts
from models.core.callers import Caller
from models.core.errors import NotFound, VersionConflict
from models.core.statuses import FireKind, FireOutcome, Overlap
from models.schedules.decide import Decided, Rules, apply_plans, decide_locked, move_on, read_states
from models.schedules.fires import NewFire, add_fires
from models.schedules.plan import Decision, Plan, decide, next_look
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
    return _each(items, lambda item: _set_paused(conn, item, rules))


def _set_paused(conn: Connection, item: SetPaused, rules: Rules) -> ChangeResult:
    found = _lock(conn, item.caller, item.schedule_id)
    if found is None:
        return NotFound("schedule", item.schedule_id)
    if item.paused == found.paused:
        return Changed(found)
    if item.expect_version is not None and item.expect_version != found.version:
        return VersionConflict(item.schedule_id, found.version)
    now = clock(conn)
    decided = decide_locked(conn, [found], rules, until=now)
    values = {"schedule_id": item.schedule_id, "now": now}
    if item.paused:
        row = conn.execute(_PAUSE, {**values, "note": item.note}).one()
    else:
        fire_at, look = next_look(found, now)
        fresh = {"next_fire_at": fire_at, "next_at": look, "tz_version": TZ_VERSION}
        row = conn.execute(_RESUME, {**values, **fresh}).one()
    act = Act.SCHEDULE_PAUSED if item.paused else Act.SCHEDULE_RESUMED
    record_acts(conn, audited_act(item.caller, act, item.schedule_id, found.owner))
    return Changed(Schedule(*row), decided=decided)


def delete_schedules(conn: Connection, items: Sequence[DeleteSchedule]) -> list[Deleted | NotFound]:
    """Delete schedules with the fires that wait; upkeep drops their decisions. Their runs stay."""
    return _each(items, lambda item: _delete(conn, item))


def _delete(conn: Connection, item: DeleteSchedule) -> Deleted | NotFound:
    found = _lock(conn, item.caller, item.schedule_id)
    if found is None:
        return NotFound("schedule", item.schedule_id)
    conn.execute(_DELETE, {"schedule_id": item.schedule_id})
    record_acts(conn, audited_act(item.caller, Act.SCHEDULE_DELETED, item.schedule_id, found.owner))
    return Deleted(item.schedule_id)


def trigger_schedules(conn: Connection, items: Sequence[Trigger], *, rules: Rules) -> list[Triggered | NotFound]:
    """Make a fire of each schedule now, paused or not, by its overlap policy. Safe to repeat with the same request."""
    return _each(items, lambda item: _trigger(conn, item, rules))


def _trigger(conn: Connection, item: Trigger, rules: Rules) -> Triggered | NotFound:
    found = _lock(conn, item.caller, item.schedule_id)
    if found is None:
        return NotFound("schedule", item.schedule_id)
    fire = _requested(conn, found, item.request)
    if fire is not None:
        return Triggered(fire)
    decided = decide_locked(conn, [found], rules)
    (found,) = lock_schedules(conn, [item.schedule_id]).values()
    now = clock(conn)
    states = read_states(conn, [found], rules)
    plan = Plan(decided_until=found.decided_until, next_fire_at=found.next_fire_at, next_at=found.next_at)
    wanted = Decision(now, FireKind.MANUAL, FireOutcome.SUBMITTED, request=item.request)
    decide(plan, found, states[found.schedule_no], wanted, item.overlap)
    apply_plans(conn, [(found, plan)], now, rules, decided)
    move_on(conn, [(found, plan)], states)
    record_acts(conn, audited_act(item.caller, Act.SCHEDULE_TRIGGERED, item.schedule_id, found.owner))
    made = _requested(conn, found, item.request)
    assert made is not None  # noqa: S101 -- it was inserted, at a time of its own
    return Triggered(made, decided)


def backfill_schedules(conn: Connection, items: Sequence[Backfill], *, rules: Rules) -> list[Backfilled | NotFound]:
    """Buffer a fire for each nominal time that has no run; workers submit them. Safe to repeat."""
    return _each(items, lambda item: _backfill(conn, item, rules))


def _backfill(conn: Connection, item: Backfill, rules: Rules) -> Backfilled | NotFound:
    found = _lock(conn, item.caller, item.schedule_id)
    if found is None:
        return NotFound("schedule", item.schedule_id)
    # Times up to now have their decision first.
    now = clock(conn)
    decided = decide_locked(conn, [found], rules, until=now)
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
    return Backfilled(planned.times, planned.already, planned.more, decided)


def plan_backfill(conn: Connection, schedule: Schedule, item: Backfill, now: datetime) -> Backfilled:
    """Return what a backfill would submit, and change nothing."""
    until = min(item.end - MICROSECOND, now)
    times = due_times(schedule.times, item.begin - MICROSECOND, until, item.most + 1)
    asked = times[: item.most]
    rows = conn.execute(_HAVE_RUNS, {"number": schedule.schedule_no, "moments": asked})
    have_runs = set(rows.scalars())
    wanted = [moment for moment in asked if moment not in have_runs]
    return Backfilled(wanted, len(asked) - len(wanted), len(times) > item.most)


def _each(items: Sequence[Item], act: Callable[[Item], Result]) -> list[Result]:
    """Act on each item, in one order of locks."""
    places = sorted(range(len(items)), key=lambda place: items[place].schedule_id)
    results = {place: act(items[place]) for place in places}
    return [results[place] for place in range(len(items))]


def _lock(conn: Connection, caller: Caller, schedule_id: str) -> Schedule | None:
    found = lock_schedules(conn, [schedule_id]).get(schedule_id)
    return found if found is not None and owner_filter(caller) in {None, found.owner} else None


def _requested(conn: Connection, schedule: Schedule, request: str) -> Fire | None:
    row = conn.execute(_REQUESTED, {"number": schedule.schedule_no, "request": request}).first()
    return None if row is None else Fire(*row)
