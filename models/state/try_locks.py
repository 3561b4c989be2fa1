"""Locks that never wait: locked rows are left to the next pass."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, Select, select, text

from models.schema.columns import any_of
from models.schema.sql import sql
from models.schema.tables import runs, sessions, stop_commands
from models.state.locks import CONCERNED, LOCKED_COLUMNS, LockedRows

_LOCK_RUNS: Select[Any] = (
    select(*LOCKED_COLUMNS).where(CONCERNED).order_by(runs.c.run_id).with_for_update(of=runs, skip_locked=True)
)
_LOCK_SESSIONS = (
    select(sessions)
    .where(sessions.c.session_id == any_of("sessions"))
    .order_by(sessions.c.session_id)
    .with_for_update(skip_locked=True)
)
_LOCK_STOPS = (
    select(stop_commands.c.stop_id)
    .where(stop_commands.c.session_id == any_of("sessions"))
    .order_by(stop_commands.c.stop_id)
    .with_for_update(skip_locked=True)
)

# Return sessions that are locked in part: a run or a stop of them is locked elsewhere, or was added meanwhile.
_INCOMPLETE = sql("""
    SELECT s.session_id FROM unnest(CAST(:sessions AS text[])) AS s(session_id)
    WHERE EXISTS (SELECT 1 FROM runs WHERE runs.session_id = s.session_id
                  AND runs.status IN $UNFINISHED
                  AND NOT runs.run_id = ANY(CAST(:runs AS text[])))
       OR EXISTS (SELECT 1 FROM stop_commands c WHERE c.session_id = s.session_id
                  AND NOT c.stop_id = ANY(CAST(:stops AS bigint[])))
""")

_LOCK_RUNNERS = text("""
    SELECT runner_id, registration, sends_tokens, sends_holding, told_interval, last_seen, lost_at, left_at
    FROM runners WHERE runner_id = ANY(CAST(:runner_ids AS text[]))
    ORDER BY runner_id FOR NO KEY UPDATE SKIP LOCKED
""")


def try_lock_runs(conn: Connection, run_ids: Collection[str] = (), session_ids: Collection[str] = ()) -> LockedRows:
    """Lock the sessions concerned with all their unfinished runs and open stops, except those locked elsewhere in any
    part.

    The order is that of ``lock_runs``; since nothing is waited for, expiry closes no cycle of locks.
    """
    rows = conn.execute(_LOCK_RUNS, {"run_ids": list(run_ids), "sessions": list(session_ids)}).all()
    wanted = sorted({row.session_id for row in rows} | set(session_ids))
    locked_sessions = {row.session_id: row for row in conn.execute(_LOCK_SESSIONS, {"sessions": wanted})}
    names = list(locked_sessions)
    stops = conn.execute(_LOCK_STOPS, {"sessions": names}).scalars().all()
    parameters = {"sessions": names, "runs": [row.run_id for row in rows], "stops": list(stops)}
    incomplete = set(conn.execute(_INCOMPLETE, parameters).scalars())
    whole = locked_sessions.keys() - incomplete
    return LockedRows(
        runs={row.run_id: row for row in rows if row.session_id in whole},
        sessions={name: row for name, row in locked_sessions.items() if name in whole},
    )


def try_lock_runners(conn: Connection, runner_ids: Collection[str]) -> dict[str, Row[Any]]:
    """Lock those of the runners that are free, and return them as they are now."""
    rows = conn.execute(_LOCK_RUNNERS, {"runner_ids": sorted(runner_ids)})
    return {row.runner_id: row for row in rows}
