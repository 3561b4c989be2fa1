from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, text

from models.core.errors import BadCursor
from models.core.limits import DEFAULT_LIMITS, Limits
from models.runs.lists import PageKey, parse_key, write_key
from models.schema.sql import sql


@dataclass(frozen=True, slots=True)
class RunnerInfo:
    """Runner as the API shows it. ``executor`` is JSON text; ``status`` online or stale, which a lost one is too."""

    runner_id: str
    registered_at: datetime
    last_seen: datetime
    hostname: str
    project_dir: str
    executor_profile: str
    executor: str | None
    tags: list[str]
    require_matching_tags: bool
    status: str
    seconds_since_heartbeat: float
    capacity: int | None
    runs_in_hand: int
    lost: bool
    draining_since: datetime | None
    drain_reason: str | None


# Condition on a runner ``n``: it has not left and is not forgotten.
IS_KNOWN: Final = """n.left_at IS NULL AND n.leave_told_at IS NULL
      AND (n.last_seen > now() - make_interval(secs => :forget)
           OR n.last_seen >= (SELECT silent_before(CAST(:forget AS float))))"""
# Rows to join with runners ``n``: the moment before which the last sign of life makes one stale. Computed once for each
# interval that was told, not for each runner.
TOLD: Final = """(SELECT t.told_interval, silent_before(greatest(CAST(:stale_after AS float), 2 * t.told_interval))
          FROM (SELECT DISTINCT told_interval FROM runners) t) told(told_interval, silent_before)
        ON told.told_interval = n.told_interval"""
IS_ONLINE: Final = "n.lost_at IS NULL AND n.last_seen >= told.silent_before"
# Capacity that a runner ``n`` told: none tells 0, which the column holds while it drains (models.runners.drain).
TOLD_CAPACITY: Final = "CASE WHEN n.capacity = 0 THEN n.drained_capacity ELSE n.capacity END"

_SHOWN: Final = sql(
    """
    SELECT n.runner_id, n.registered_at, n.last_seen, n.hostname, n.project_dir, n.executor_profile,
        CAST(n.executor AS text) AS executor, n.tags, n.require_matching_tags, $capacity AS capacity,
        n.draining_since, n.drain_reason, n.lost_at IS NOT NULL AS lost, coalesce(hand.runs, 0) AS runs_in_hand,
        greatest(CAST(extract(epoch FROM clock_timestamp() - n.last_seen) AS float), 0) AS seconds_since_heartbeat,
        CASE WHEN $is_online THEN 'online' ELSE 'stale' END AS status
    FROM runners n
    JOIN $told
    LEFT JOIN LATERAL (SELECT count(*) AS runs FROM runs r
                       WHERE r.runner_id = n.runner_id AND r.status IN $IN_HAND) hand ON true
    WHERE $is_known
    """,
    is_online=IS_ONLINE,
    told=TOLD,
    is_known=IS_KNOWN,
    capacity=TOLD_CAPACITY,
).text
_LIST = text(
    _SHOWN
    + """
      AND (CAST(:subject AS text) IS NULL OR n.owner IS NULL OR n.owner = CAST(:subject AS text))
      AND (CAST(:after_row AS text) IS NULL
           OR (n.registered_at, n.runner_id) > (CAST(:after_moment AS timestamptz), CAST(:after_row AS text)))
    ORDER BY n.registered_at, n.runner_id
    LIMIT CAST(:most AS bigint)
    """
)
_READ = text(_SHOWN + "AND n.runner_id = ANY(CAST(:runner_ids AS text[]))")
_FIELDS: Final = [field.name for field in fields(RunnerInfo)]


@dataclass(frozen=True, slots=True)
class RunnerPage:
    runners: list[RunnerInfo]
    next_cursor: str | None


def list_runners(conn: Connection, subject: str | None = None, *, limits: Limits = DEFAULT_LIMITS) -> list[RunnerInfo]:
    """Return all runners that have not left and are not forgotten, in the order of their registration.

    With a ``subject`` only those it may act for.
    """
    return _listed(conn, subject, limits)


def page_runners(
    conn: Connection, subject: str | None, *, limit: int, after: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> RunnerPage | BadCursor:
    """Return a page of ``list_runners``; BadCursor for a cursor from elsewhere.

    A walk sees every runner that is there all the time; one that registers again meanwhile may be seen twice.
    """
    key = parse_key(after) if after is not None else None
    if after is not None and key is None:
        return BadCursor(after)
    found = _listed(conn, subject, limits, limit + 1, key)
    shown = found[:limit]
    more = len(found) > limit
    return RunnerPage(shown, write_key(shown[-1].registered_at, shown[-1].runner_id) if more else None)


def _listed(
    conn: Connection, subject: str | None, limits: Limits, most: int | None = None, after: PageKey | None = None
) -> list[RunnerInfo]:
    moment, row_id = after or (None, None)
    parameters = {
        "stale_after": limits.stale_after,
        "forget": limits.forget_runner,
        "subject": subject,
        "after_moment": moment,
        "after_row": row_id,
        "most": most,
    }
    return _infos(conn.execute(_LIST, parameters))


def read_runners(
    conn: Connection, runner_ids: Sequence[str], *, limits: Limits = DEFAULT_LIMITS
) -> dict[str, RunnerInfo]:
    """Return those of the runners that have not left and are not forgotten, by id."""
    parameters = {
        "stale_after": limits.stale_after,
        "forget": limits.forget_runner,
        "runner_ids": list(runner_ids),
    }
    return {runner.runner_id: runner for runner in _infos(conn.execute(_READ, parameters))}


def _infos(rows: Iterable[Any]) -> list[RunnerInfo]:
    return [RunnerInfo(**{name: getattr(row, name) for name in _FIELDS}) for row in rows]
