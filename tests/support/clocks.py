"""Time that passes by moving what is stored into the past, never by waiting."""

from typing import Any

from models.base import DEFAULT_LIMITS, Limits
from models.expire import ExpireResult, expire
from tests.support.truth import Runner, Truth


def pass_time(truth: Truth, table: str, column: str, seconds: float, where: str = "true", **values: Any) -> None:
    """Let the moment in a column be so many seconds longer ago."""
    statement = f"UPDATE {table} SET {column} = {column} - make_interval(secs => :seconds) WHERE {where}"
    truth.rows(statement, seconds=seconds, **values)


def fall_silent(truth: Truth, runner: Runner, seconds: float) -> None:
    """Let the runner be heard last so long ago."""
    statement = "UPDATE runners SET last_seen = clock_timestamp() - make_interval(secs => :s) WHERE runner_id = :r"
    truth.rows(statement, s=seconds, r=runner.runner_id)


def due(truth: Truth, run_id: str, column: str, ago: float = 1) -> None:
    """Let a deadline of the run have passed a moment ago."""
    statement = f"UPDATE runs SET {column} = clock_timestamp() - make_interval(secs => :s) WHERE run_id = :r"
    truth.rows(statement, s=ago, r=run_id)


def add_gap(truth: Truth, kind: str, began: float, ended: float) -> None:
    """Note a gap that began and ended so many seconds ago."""
    truth.rows(
        "INSERT INTO gaps (kind, started_at, ended_at) VALUES (:k, clock_timestamp() - make_interval(secs => :b), "
        "clock_timestamp() - make_interval(secs => :e))",
        k=kind,
        b=began,
        e=ended,
    )


def tick(truth: Truth, limits: Limits = DEFAULT_LIMITS, *, at_most: int = 500) -> ExpireResult:
    """One committed pass of expiry."""
    return truth.do(expire, limits=limits, at_most=at_most)


def counts(truth: Truth, limits: Limits = DEFAULT_LIMITS) -> dict[str, int]:
    """What one pass of expiry did, by name."""
    return tick(truth, limits).counts
