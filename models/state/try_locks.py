from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select, text

from models.schema.columns import any_of
from models.schema.sql import sql
from models.schema.tables import runs, sessions, stop_commands
from models.state.locked_rows import LOCKED_RUN_COLUMNS, LOCKED_SESSION_COLUMNS, runs_by_id, sessions_by_id
from models.state.locks import CONCERNED, LockedRows

_LOCK_RUNS: Select[Any] = (
    select(*LOCKED_RUN_COLUMNS).where(CONCERNED).order_by(runs.c.run_id).with_for_update(of=runs, skip_locked=True)
)
_LOCK_SESSIONS = (
    select(*LOCKED_SESSION_COLUMNS)
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
    SELECT runner_id, registration, sends_tokens, told_interval, last_seen, lost_at, left_at
    FROM runners WHERE runner_id = ANY(CAST(:runner_ids AS text[]))
    ORDER BY runner_id FOR NO KEY UPDATE SKIP LOCKED
""")


def try_lock_runs(conn: Connection, run_ids: Collection[str] = (), session_ids: Collection[str] = ()) -> LockedRows:
    """Lock the sessions concerned with all their unfinished runs and open stops, except those locked elsewhere in any
    part.

    The order is that of ``lock_runs``; since nothing is waited for, expiry closes no cycle of locks.
    """
    found = runs_by_id(conn.execute(_LOCK_RUNS, {"run_ids": list(run_ids), "sessions": list(session_ids)}))
    wanted = sorted({run.session_id for run in found.values()} | set(session_ids))
    locked_sessions = sessions_by_id(conn.execute(_LOCK_SESSIONS, {"sessions": wanted}))
    names = list(locked_sessions)
    stops = conn.execute(_LOCK_STOPS, {"sessions": names}).scalars().all()
    parameters = {"sessions": names, "runs": list(found), "stops": list(stops)}
    incomplete = set(conn.execute(_INCOMPLETE, parameters).scalars())
    whole = locked_sessions.keys() - incomplete
    return LockedRows(
        runs={run_id: run for run_id, run in found.items() if run.session_id in whole},
        sessions={name: session for name, session in locked_sessions.items() if name in whole},
    )


@dataclass(frozen=True, slots=True)
class LockedRunner:
    runner_id: str
    registration: int
    sends_tokens: bool
    told_interval: int
    last_seen: datetime
    lost_at: datetime | None
    left_at: datetime | None


def try_lock_runners(conn: Connection, runner_ids: Collection[str]) -> dict[str, LockedRunner]:
    rows = conn.execute(_LOCK_RUNNERS, {"runner_ids": sorted(runner_ids)})
    return {runner.runner_id: runner for runner in (LockedRunner(*row) for row in rows)}
