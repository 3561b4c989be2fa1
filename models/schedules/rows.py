"""Rows of schedules and of their decisions."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from models.core.callers import Caller, Role
from models.schedules.spec import Spec, read_spec
from models.schema.columns import names_of
from models.schema.sql import sql
from models.schema.tables import schedules


@dataclass(frozen=True, slots=True)
class Schedule:
    """Schedule as a locked row shows it. ``spec``, ``run`` and ``template`` are JSON text."""

    schedule_id: str
    schedule_no: int
    owner: str | None
    created_by: str | None
    version: int
    put_key: str
    spec: str
    timezone: str
    start_at: datetime | None
    end_at: datetime | None
    run: str
    template: str
    overlap: str
    buffer_most: int
    catch_up_seconds: int
    catch_up_most: int
    jitter_seconds: int
    most_fires: int | None
    pause_after_failures: int | None
    note: str
    paused: bool
    pause_reason: str | None
    fired: int
    failures: int
    decided_until: datetime
    next_fire_at: datetime | None
    next_at: datetime | None
    has_buffered: bool
    created_at: datetime
    updated_at: datetime

    @property
    def caller(self) -> Caller:
        """Caller as which its runs are submitted: its owner, or an admin where it has none."""
        return Caller(Role.ADMIN) if self.owner is None else Caller(Role.USER, self.owner)

    @property
    def times(self) -> Spec:
        return read_spec(self.spec, self.timezone, self.start_at, self.end_at)

    @property
    def fires_left(self) -> int | None:
        return None if self.most_fires is None else max(0, self.most_fires - self.fired)


@dataclass(frozen=True, slots=True)
class Fire:
    """Decision on a time. ``run_status``: of the run as it is; ``times``: how many it stands for, from the first."""

    schedule_no: int
    fire_at: datetime
    kind: str
    outcome: str
    reason: str | None
    run_id: str | None
    run_status: str | None
    times: int
    first_fire_at: datetime | None
    waits: bool
    decided_at: datetime
    submitted_at: datetime | None


COLUMNS: Final = names_of("s", [schedules.c[field.name] for field in fields(Schedule)])
# The run may have ended without its schedule having noticed, and be deleted since.
FIRES: Final = "schedule_fires f LEFT JOIN runs r ON r.run_id = f.run_id"
FIRE_SHOWN: Final = (
    "f.schedule_no, f.fire_at, f.kind, f.outcome, f.reason, f.run_id,"
    " coalesce(f.run_status, r.status, CASE WHEN f.run_id IS NOT NULL THEN 'deleted' END) AS run_status,"
    " f.times, f.first_fire_at, f.waits, f.decided_at, f.submitted_at"
)

_NOW: Final = text("SELECT clock_timestamp()")

_LOCK: Final = sql(
    """
    SELECT $columns FROM schedules s WHERE s.schedule_id = ANY(CAST(:ids AS text[])) ORDER BY s.schedule_id FOR UPDATE
    """,
    columns=COLUMNS,
)


def clock(conn: Connection) -> datetime:
    """Return the time of Postgres, by which all is decided; ask once the rows are locked."""
    now: datetime = conn.execute(_NOW).scalar_one()
    return now


def lock_schedules(conn: Connection, ids: Sequence[str]) -> dict[str, Schedule]:
    """Lock the schedules of these ids, and wait for those that are being decided."""
    return {row.schedule_id: Schedule(*row) for row in conn.execute(_LOCK, {"ids": sorted(set(ids))})}
