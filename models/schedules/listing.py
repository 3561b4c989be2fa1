"""Read schedules and their decisions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection

from models.core.callers import Caller
from models.core.errors import BadCursor, NotFound
from models.runs.lists import parse_key, write_key
from models.schedules.control import Backfill, Backfilled, plan_backfill
from models.schedules.rows import COLUMNS, FIRE_SHOWN, FIRES, Fire, Schedule, clock
from models.schema.sql import sql
from models.state.visibility import owner_filter

MOST_LEFT: Final = 2**31


@dataclass(frozen=True, slots=True)
class ShownSchedule:
    schedule: Schedule
    newest: Fire | None


@dataclass(frozen=True, slots=True)
class SchedulePage:
    schedules: list[ShownSchedule]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class FirePage:
    fires: list[Fire]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Upcoming:
    """Schedule, the time from which its next times are computed, and how many of them it has left at most."""

    schedule: Schedule
    after: datetime
    left: int


ScheduleResult: TypeAlias = ShownSchedule | NotFound

_GET: Final = sql("SELECT $columns FROM schedules s WHERE s.schedule_id = :schedule_id", columns=COLUMNS)

_NEWEST: Final = sql(
    """
    SELECT newest.*
    FROM unnest(CAST(:numbers AS bigint[])) AS wanted(schedule_no)
    CROSS JOIN LATERAL (SELECT $shown FROM $fires WHERE f.schedule_no = wanted.schedule_no
                        ORDER BY f.fire_at DESC, f.kind DESC LIMIT 1) newest
    """,
    shown=FIRE_SHOWN,
    fires=FIRES,
)

_PAGE: Final = {
    (is_limited, is_next): sql(
        """
        SELECT $columns FROM schedules s WHERE true $limited $next
        ORDER BY s.created_at DESC, s.schedule_id DESC LIMIT :most
        """,
        columns=COLUMNS,
        limited="AND s.owner = :owner" if is_limited else "",
        next="AND (s.created_at, s.schedule_id) < (:after_moment, :after_row)" if is_next else "",
    )
    for is_limited in (False, True)
    for is_next in (False, True)
}

_FIRES: Final = {
    is_next: sql(
        """
        SELECT $shown FROM $fires WHERE f.schedule_no = :number $next
        ORDER BY f.fire_at DESC, f.kind DESC LIMIT :most
        """,
        shown=FIRE_SHOWN,
        fires=FIRES,
        next="AND (f.fire_at, f.kind) < (:after_moment, :after_row)" if is_next else "",
    )
    for is_next in (False, True)
}


def get_schedule(conn: Connection, caller: Caller, schedule_id: str) -> ScheduleResult:
    """Return a schedule and its newest decision; NotFound for one of another owner, unless an admin asks."""
    found = _find(conn, caller, schedule_id)
    return NotFound("schedule", schedule_id) if found is None else _with_newest(conn, [found])[0]


def list_schedules(
    conn: Connection, caller: Caller, *, limit: int, after: str | None = None
) -> SchedulePage | BadCursor:
    """Return a page of schedules, newest first: the caller's own, for an admin all of them."""
    key = None if after is None else parse_key(after)
    if after is not None and key is None:
        return BadCursor(after)
    owner = owner_filter(caller)
    values: dict[str, Any] = {"most": limit + 1, **({} if owner is None else {"owner": owner}), **_behind(key)}
    found = [Schedule(*row) for row in conn.execute(_PAGE[owner is not None, key is not None], values)]
    shown = _with_newest(conn, found[:limit])
    last = shown[-1].schedule if len(found) > limit else None
    return SchedulePage(shown, None if last is None else write_key(last.created_at, last.schedule_id))


def list_fires(
    conn: Connection, caller: Caller, schedule_id: str, *, limit: int, after: str | None = None
) -> FirePage | BadCursor | NotFound:
    """Return a page of the decisions on a schedule's times, newest time first."""
    key = None if after is None else parse_key(after)
    if after is not None and key is None:
        return BadCursor(after)
    found = _find(conn, caller, schedule_id)
    if found is None:
        return NotFound("schedule", schedule_id)
    values = {"number": found.schedule_no, "most": limit + 1, **_behind(key)}
    fires = [Fire(*row) for row in conn.execute(_FIRES[key is not None], values)]
    last = fires[limit - 1] if len(fires) > limit else None
    return FirePage(fires[:limit], None if last is None else write_key(last.fire_at, last.kind))


def read_upcoming(conn: Connection, caller: Caller, schedule_id: str) -> Upcoming | NotFound:
    """Return a schedule and from when its next times count: from now on if it is paused."""
    found = _find(conn, caller, schedule_id)
    if found is None:
        return NotFound("schedule", schedule_id)
    now = clock(conn)
    left = MOST_LEFT if found.fires_left is None else found.fires_left
    return Upcoming(found, max(found.decided_until, now) if found.paused else found.decided_until, left)


def preview_backfill(conn: Connection, item: Backfill) -> Backfilled | NotFound:
    """Return what a backfill would submit now."""
    found = _find(conn, item.caller, item.schedule_id)
    return NotFound("schedule", item.schedule_id) if found is None else plan_backfill(conn, found, item, clock(conn))


def _find(conn: Connection, caller: Caller, schedule_id: str) -> Schedule | None:
    row = conn.execute(_GET, {"schedule_id": schedule_id}).first()
    found = None if row is None else Schedule(*row)
    return found if found is not None and owner_filter(caller) in {None, found.owner} else None


def _with_newest(conn: Connection, found: Sequence[Schedule]) -> list[ShownSchedule]:
    if not found:
        return []
    rows = conn.execute(_NEWEST, {"numbers": [each.schedule_no for each in found]})
    newest = {row.schedule_no: Fire(*row) for row in rows}
    return [ShownSchedule(each, newest.get(each.schedule_no)) for each in found]


def _behind(key: tuple[datetime, str] | None) -> dict[str, Any]:
    return {} if key is None else {"after_moment": key[0], "after_row": key[1]}
