"""Ends the work of a registration that is over: its runner left, is lost, or another process took its place."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from models.core.statuses import IN_HAND
from models.runs.stop import close_stops, read_stops
from models.schema.sql import sql
from models.state.endings import idle_lost, idle_stopped, lose
from models.state.locks import LockedRows, LockedRun
from models.state.session_status import SessionChange
from models.state.transitions import Move, move_runs, update_status_and_record

LEFT = "Runner lost: it left"
REPLACED = "Runner lost: another process took its place"
NOT_HELD = "Runner lost: it does not hold the run any more"
ORPHANED = "Runner lost: no sign of life of the run since the coordinator was away"


@dataclass(frozen=True, slots=True)
class Ended:
    """End of one registration: the reason, and whether that process ever sent a claim token."""

    reason: str
    sends_tokens: bool


_IN_HAND = sql("""
    SELECT run_id FROM runs
    WHERE runner_id = ANY(CAST(:runner_ids AS text[])) AND status IN $IN_HAND
""")

_LIVE = text("SELECT session_id FROM sessions WHERE runner_id = ANY(CAST(:runner_ids AS text[]))")


def work_held_by(conn: Connection, runner_ids: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the ids of the runs that the runners have in hand, and of the sessions whose process they keep alive."""
    parameters = {"runner_ids": list(runner_ids)}
    return (
        list(conn.execute(_IN_HAND, parameters).scalars()),
        list(conn.execute(_LIVE, parameters).scalars()),
    )


def registrations(locked: LockedRows) -> dict[str, set[int]]:
    """Return the registrations that hold a run or keep a session alive, by runner."""
    numbers: defaultdict[str, set[int]] = defaultdict(set)
    for run in locked.runs.values():
        if run.runner_id is not None and run.status in IN_HAND:
            numbers[run.runner_id].add(run.registration)
    for session in locked.sessions.values():
        if session.runner_id is not None:
            numbers[session.runner_id].add(session.registration)
    return dict(numbers)


def end_work(conn: Connection, locked: LockedRows, ended: Mapping[int, Ended]) -> list[LockedRun]:
    """End the locked work of the registrations: runs are lost, idle sessions finished, stops done.

    Return the runs as they are now. The runs and sessions come from ``lock_runs`` or ``try_lock_runs``.
    """
    runs = [run for run in locked.runs.values() if run.registration in ended and run.status in IN_HAND]
    idle = _idle_sessions(locked, ended)
    concerned = {run.session_id for run in runs} | set(idle)
    stopping = read_stops(conn, concerned).keys()
    close_stops(conn, concerned)
    moved = move_runs(conn, [_lost(run, ended[run.registration]) for run in runs])
    update_status_and_record(conn, [_idle_end(session_id, stopping=session_id in stopping) for session_id in idle])
    return list(moved.values())


def _idle_sessions(locked: LockedRows, ended: Mapping[int, Ended]) -> list[str]:
    active = {run.session_id for run in locked.runs.values() if run.status in IN_HAND}
    return [name for name, row in sorted(locked.sessions.items()) if row.registration in ended and name not in active]


def _lost(run: LockedRun, end: Ended) -> Move:
    return lose(run, reason=end.reason, sends_tokens=end.sends_tokens)


def _idle_end(session_id: str, *, stopping: bool) -> SessionChange:
    return idle_stopped(session_id) if stopping else idle_lost(session_id)
