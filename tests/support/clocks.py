"""Pass time by moving stored timestamps into the past, never by waiting."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, DateTime, TextClause, text

from models.core.limits import DEFAULT_LIMITS, Limits
from models.expiry.expire import ExpireResult, expire
from models.schema.tables import metadata
from tests.support.db_verbs import DbVerbs, Runner

# Tables whose timestamps expiry and the lists of runners compare with the clock.
_TIMED = ("runners", "runs", "sessions", "stop_commands", "duties", "gaps")


def let_time_pass(db: DbVerbs, seconds: float) -> None:
    """Move all timestamps from which deadlines count by so many seconds into the past, as if nothing had happened
    since.
    """
    db.do(shift, seconds)


def shift(conn: Connection, seconds: float) -> None:
    """Do the same within a transaction."""
    for statement in _SHIFTS:
        conn.execute(statement, {"s": seconds})


def _shift_of(name: str) -> TextClause:
    moments = [column.name for column in metadata.tables[name].columns if isinstance(column.type, DateTime)]
    return text(f"UPDATE {name} SET " + ", ".join(f"{one} = {one} - make_interval(secs => :s)" for one in moments))


_SHIFTS = [_shift_of(name) for name in _TIMED]


def simulate(db: DbVerbs, seconds: int, beat: Callable[[int], None], *, step: int = 5) -> None:
    """Pass time with a pass of expiry each ``step`` seconds; ``beat`` acts at each moment.

    The time that the test itself takes is part of it.
    """
    began, moved = db.one("SELECT clock_timestamp()"), 0.0
    for moment in range(step, seconds + 1, step):
        taken = (db.one("SELECT clock_timestamp()") - began).total_seconds()
        missing = max(0.0, moment - taken - moved)
        let_time_pass(db, missing)
        moved += missing
        beat(moment)
        tick(db)


def pass_time(db: DbVerbs, table: str, column: str, seconds: float, where: str = "true", **values: Any) -> None:
    """Move the timestamp in a column by so many seconds into the past."""
    statement = f"UPDATE {table} SET {column} = {column} - make_interval(secs => :seconds) WHERE {where}"
    db.rows(statement, seconds=seconds, **values)


def fall_silent(db: DbVerbs, runner: Runner, seconds: float) -> None:
    """Set the runner's last request to so many seconds ago."""
    statement = "UPDATE runners SET last_seen = clock_timestamp() - make_interval(secs => :s) WHERE runner_id = :r"
    db.rows(statement, s=seconds, r=runner.runner_id)


def due(db: DbVerbs, run_id: str, column: str, ago: float = 1) -> None:
    """Move a deadline of the run to a moment ago."""
    statement = f"UPDATE runs SET {column} = clock_timestamp() - make_interval(secs => :s) WHERE run_id = :r"
    db.rows(statement, s=ago, r=run_id)


def add_outage(db: DbVerbs, kind: str, began: float, ended: float) -> None:
    """Record an outage that began and ended so many seconds ago."""
    db.rows(
        "INSERT INTO gaps (kind, started_at, ended_at) VALUES (:k, clock_timestamp() - make_interval(secs => :b), "
        "clock_timestamp() - make_interval(secs => :e))",
        k=kind,
        b=began,
        e=ended,
    )


def tick(db: DbVerbs, limits: Limits = DEFAULT_LIMITS, *, at_most: int = 500) -> ExpireResult:
    """Commit one pass of expiry."""
    return db.do(expire, limits=limits, at_most=at_most)


def counts(db: DbVerbs, limits: Limits = DEFAULT_LIMITS) -> dict[str, int]:
    """Return the counts of one pass of expiry, by name."""
    return tick(db, limits).counts
