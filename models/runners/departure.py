from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from models.core.statuses import IN_HAND
from models.runs.stop import close_stops, read_stops
from models.schema.sql import sql
from models.state.endings import idle_lost, idle_stopped, lose
from models.state.locks import LockedRows
from models.state.session_status import SessionChange
from models.state.transitions import move_runs, update_status_and_record

LEFT = "Runner lost: it left"
REPLACED = "Runner lost: another process took its place"
NOT_HELD = "Runner lost: it does not hold the run any more"
ORPHANED = "Runner lost: no sign of life of the run since the coordinator was away"


@dataclass(frozen=True, slots=True)
class Ended:
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
    numbers: defaultdict[str, set[int]] = defaultdict(set)
    for run in locked.runs.values():
        if run.status in IN_HAND:
            runner_id, registration = run.holder
            numbers[runner_id].add(registration)
    for session in locked.sessions.values():
        if session.process is not None:
            runner_id, registration = session.process
            numbers[runner_id].add(registration)
    return dict(numbers)


def end_work(conn: Connection, locked: LockedRows, ended: Mapping[int, Ended]) -> int:
    """End the locked work of the registrations: runs are lost, idle sessions finished, stops done.

    Return the number of lost runs. The runs and sessions come from ``lock_runs`` or ``try_lock_runs``.
    """
    moves = [
        lose(run, reason=end.reason, sends_tokens=end.sends_tokens)
        for run in locked.runs.values()
        if run.status in IN_HAND and (end := ended.get(run.holder[1])) is not None
    ]
    idle = _idle_sessions(locked, ended)
    concerned = {move.run.session_id for move in moves} | set(idle)
    stopping = read_stops(conn, concerned).keys()
    close_stops(conn, concerned)
    moved = move_runs(conn, moves)
    update_status_and_record(conn, [_idle_end(session_id, stopping=session_id in stopping) for session_id in idle])
    return len(moved.runs)


def _idle_sessions(locked: LockedRows, ended: Mapping[int, Ended]) -> list[str]:
    active = {run.session_id for run in locked.runs.values() if run.status in IN_HAND}
    return [name for name, row in sorted(locked.sessions.items()) if row.registration in ended and name not in active]


def _idle_end(session_id: str, *, stopping: bool) -> SessionChange:
    return idle_stopped(session_id) if stopping else idle_lost(session_id)
