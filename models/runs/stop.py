"""Stops sessions and runs: cancels what is not delivered, and has the runner stop what has a process.

A stop of something alive is a row of ``stop_commands`` until its runner reports an end (ARCHITECTURE, Stops).
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from sqlalchemy import Connection, text

from models.auth.audit import Act, AuditedAct, audited_act, record_acts
from models.core.callers import Caller
from models.core.errors import NotFound
from models.core.limits import DEFAULT_LIMITS, Limits
from models.core.rounds import in_rounds
from models.core.statuses import TERMINAL, Cause, RunStatus, StopCause
from models.state.locked_rows import LockedRun
from models.state.locks import LockedRows, lock_runs, refresh_sessions
from models.state.session_status import SessionChange
from models.state.transitions import Move, move_runs, update_status_and_record
from models.state.visibility import find_visible

STOP_REQUESTED = "A stop was requested"


@dataclass(frozen=True, slots=True)
class StopSession:
    caller: Caller
    session_id: str


@dataclass(frozen=True, slots=True)
class StopRun:
    caller: Caller
    run_id: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """State of a stop: ``stopped``, ``stopping``, or the earlier status, which ``message`` says.

    ``runner_to_notify``: the runner to be told of it, if any; ``parked_at``: instances that hold polls of it, as far as
    the verb saw. ``ended``: the stop has ended runs by itself, so that others may be ready and parents owed results.
    """

    session_id: str
    run_id: str | None
    status: str
    message: str | None = None
    runner_to_notify: str | None = field(default=None, compare=False)
    parked_at: frozenset[str] = field(default=frozenset(), compare=False)
    ended: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class OpenStop:
    """Stop to be told to a runner; ``run_id`` is None when it is for an idle process."""

    runner_id: str
    registration: int
    session_id: str
    run_id: str | None
    seconds: float = 0


@dataclass(frozen=True, slots=True)
class StopPlan:
    answer: Stopped
    moves: list[Move] = field(default_factory=list)
    open_stop: OpenStop | None = None
    change: SessionChange | None = None


StopResult: TypeAlias = Stopped | NotFound

_OPEN = text("""
    INSERT INTO stop_commands AS c (runner_id, registration, session_id, run_id, deadline_at)
    SELECT o.runner_id, o.registration, o.session_id, o.run_id, clock_timestamp() + make_interval(secs => o.seconds)
    FROM unnest(CAST(:runners AS text[]), CAST(:registrations AS bigint[]), CAST(:sessions AS text[]),
                CAST(:runs AS text[]), CAST(:seconds AS double precision[]))
        AS o(runner_id, registration, session_id, run_id, seconds)
    ORDER BY o.session_id
    ON CONFLICT (session_id) DO UPDATE
    SET runner_id = excluded.runner_id, registration = excluded.registration, run_id = excluded.run_id,
        created_at = now(), sent_at = NULL, deadline_at = excluded.deadline_at, superseded = false
    WHERE c.registration <> excluded.registration OR c.superseded
    RETURNING session_id, ARRAY(SELECT DISTINCT w.instance FROM waiting_polls w WHERE w.runner_id = c.runner_id)
        AS parked_at
""")

_CLOSE = text("DELETE FROM stop_commands WHERE session_id = ANY(CAST(:sessions AS text[])) AND NOT superseded")

_OPEN_ONES = text("""
    SELECT session_id, runner_id, registration, run_id FROM stop_commands
    WHERE session_id = ANY(CAST(:sessions AS text[])) AND NOT superseded
""")

_TOLD_INTERVALS = text("SELECT runner_id, told_interval FROM runners WHERE runner_id = ANY(CAST(:runners AS text[]))")


def stop_seconds(told_interval: float, limits: Limits) -> float:
    return float(max(limits.stop_timeout, 3 * told_interval))


def open_stops(conn: Connection, stops: Sequence[OpenStop]) -> dict[str, frozenset[str]]:
    """Open a stop per session, which is locked; one that is open for the same registration stays as it is.

    Return the sessions whose stop is new, each with the instances that hold parked polls of its runner.
    """
    if not stops:
        return {}
    opened = conn.execute(
        _OPEN,
        {
            "runners": [stop.runner_id for stop in stops],
            "registrations": [stop.registration for stop in stops],
            "sessions": [stop.session_id for stop in stops],
            "runs": [stop.run_id for stop in stops],
            "seconds": [stop.seconds for stop in stops],
        },
    )
    return {row.session_id: frozenset(row.parked_at) for row in opened}


def close_stops(conn: Connection, session_ids: Collection[str]) -> None:
    """Close the stops of these locked sessions; call it before their status is updated."""
    if session_ids:
        conn.execute(_CLOSE, {"sessions": sorted(session_ids)})


def read_stops(conn: Connection, session_ids: Collection[str]) -> dict[str, OpenStop]:
    if not session_ids:
        return {}
    rows = conn.execute(_OPEN_ONES, {"sessions": sorted(session_ids)})
    return {row.session_id: OpenStop(row.runner_id, row.registration, row.session_id, row.run_id) for row in rows}


def stop_sessions(
    conn: Connection,
    items: Sequence[StopSession],
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> list[StopResult]:
    """Stop all runs of each session and its live process (PROTOCOL, Sessions); safe to repeat.

    An admin's stop of another owner's session is audited, unless it changes nothing (models.auth.audit).
    """
    locked = lock_runs(conn, session_ids={item.session_id for item in items})
    shown = find_visible(conn, [(item.caller, item.session_id) for item in items])
    results: list[StopResult] = [NotFound("session", item.session_id) for item in items]
    visible = [place for place, item in enumerate(items) if locked.shows(item.session_id, item.caller, shown)]

    def plan(locked: LockedRows, place: int, seconds: Mapping[str, float]) -> StopPlan:
        return plan_session_stop(locked, items[place].session_id, seconds)

    places = [(place, items[place].session_id) for place in visible]
    acts: list[AuditedAct] = []
    for place, answer, is_new in _in_rounds(conn, locked, places, plan, limits):
        results[place] = answer
        if is_new:
            session = locked.sessions[items[place].session_id]
            acts += audited_act(items[place].caller, Act.SESSION_STOPPED, session.session_id, session.owner)
    record_acts(conn, acts)
    return results


def stop_runs(conn: Connection, items: Sequence[StopRun], *, limits: Limits = DEFAULT_LIMITS) -> list[StopResult]:
    """Stop each run; a run in hand is stopped with its session. Safe to repeat.

    An admin's stop of another owner's run is audited, unless it changes nothing (models.auth.audit).
    """
    locked = lock_runs(conn, {item.run_id for item in items})
    results: list[StopResult] = [NotFound("run", item.run_id) for item in items]
    found = [
        (place, locked.runs[item.run_id].session_id) for place, item in enumerate(items) if item.run_id in locked.runs
    ]
    shown = find_visible(conn, [(items[place].caller, session_id) for place, session_id in found])
    visible = [
        (place, session_id) for place, session_id in found if locked.shows(session_id, items[place].caller, shown)
    ]

    def plan(locked: LockedRows, place: int, seconds: Mapping[str, float]) -> StopPlan:
        return plan_run_stop(locked, locked.runs[items[place].run_id], seconds)

    acts: list[AuditedAct] = []
    for place, answer, is_new in _in_rounds(conn, locked, visible, plan, limits):
        results[place] = answer
        if is_new:
            owner = locked.sessions[locked.runs[items[place].run_id].session_id].owner
            acts += audited_act(items[place].caller, Act.RUN_STOPPED, items[place].run_id, owner)
    record_acts(conn, acts)
    return results


def _in_rounds(
    conn: Connection,
    locked: LockedRows,
    visible: Sequence[tuple[int, str]],
    plan: Callable[[LockedRows, int, Mapping[str, float]], StopPlan],
    limits: Limits,
) -> Iterator[tuple[int, Stopped, bool]]:
    seconds = _seconds_by_runner(conn, locked, limits) if visible else {}
    for number, one_round in enumerate(in_rounds(session_id for _, session_id in visible)):
        if number:
            locked = refresh_sessions(conn, locked, {visible[index][1] for index in one_round})
        plans = {visible[index][0]: plan(locked, visible[index][0], seconds) for index in one_round}
        opened = open_stops(conn, [stop.open_stop for stop in plans.values() if stop.open_stop is not None])
        moved = move_runs(conn, [move for stop in plans.values() for move in stop.moves])
        locked = locked.updated(moved.runs, {})
        update_status_and_record(conn, [stop.change for stop in plans.values() if stop.change is not None])
        for place, stop in plans.items():
            parked_at = opened.get(stop.answer.session_id)
            answer = replace(stop.answer, parked_at=parked_at or frozenset(), ended=any(map(_ends, stop.moves)))
            yield place, answer, bool(stop.moves) or parked_at is not None


def _seconds_by_runner(conn: Connection, locked: LockedRows, limits: Limits) -> Mapping[str, float]:
    concerned = {run.runner_id for run in locked.runs.values() if run.runner_id is not None}
    concerned |= {session.runner_id for session in locked.sessions.values() if session.runner_id is not None}
    rows = conn.execute(_TOLD_INTERVALS, {"runners": sorted(concerned)})
    known = {row.runner_id: stop_seconds(row.told_interval, limits) for row in rows}
    return defaultdict(lambda: limits.stop_timeout, known)


def plan_session_stop(locked: LockedRows, session_id: str, seconds: Mapping[str, float]) -> StopPlan:
    """Decide what a stop of a whole session does; ``seconds`` says how long each runner may take."""
    session = locked.sessions[session_id]
    unfinished = locked.unfinished_of(session_id)
    waiting = [run for run in unfinished if _undelivered(run)]
    active = next((run for run in unfinished if not _undelivered(run)), None)
    moves = [cancelled(run) for run in waiting]
    if active is not None:
        runner_id, registration = active.holder
        after = seconds[runner_id]
        moves += _stop_moves(active, after)
        open_stop = OpenStop(runner_id, registration, session_id, active.run_id, after)
        return _plan(Stopped(session_id, active.run_id, "stopping", runner_to_notify=runner_id), moves, open_stop)
    last = waiting[-1].run_id if waiting else None
    if session.process is not None:
        runner_id, registration = session.process
        open_stop = OpenStop(runner_id, registration, session_id, None, seconds[runner_id])
        return _plan(Stopped(session_id, last, "stopping", runner_to_notify=runner_id), moves, open_stop)
    if moves:
        return StopPlan(Stopped(session_id, last, "stopped"), moves)
    return StopPlan(Stopped(session_id, None, session.status, f"Session already {session.status}"))


def plan_run_stop(locked: LockedRows, run: LockedRun, seconds: Mapping[str, float]) -> StopPlan:
    if run.status in TERMINAL:
        return StopPlan(Stopped(run.session_id, run.run_id, run.status, f"Run already {run.status}"))
    if _undelivered(run):
        return StopPlan(Stopped(run.session_id, run.run_id, "stopped"), [cancelled(run)])
    return plan_session_stop(locked, run.session_id, seconds)


def _plan(answer: Stopped, moves: list[Move], open_stop: OpenStop) -> StopPlan:
    return StopPlan(answer, moves, open_stop, None if moves else SessionChange(answer.session_id))


def _ends(move: Move) -> bool:
    return move.to is RunStatus.STOPPED


def _undelivered(run: LockedRun) -> bool:
    return run.status == RunStatus.PENDING or (run.status == RunStatus.CLAIMED and run.delivered_at is None)


def cancelled(run: LockedRun) -> Move:
    change = SessionChange(run.session_id, "stopped", unless_live=True)
    return Move(run, RunStatus.STOPPED, change, by_us=True, cause=Cause.STOPPED, reason=STOP_REQUESTED)


def _stop_moves(run: LockedRun, seconds: float) -> list[Move]:
    stopping = run.status == RunStatus.STOPPING
    if stopping and run.stop_cause == StopCause.STOP:
        return []
    return [
        Move(
            run,
            RunStatus.STOPPING,
            SessionChange(run.session_id),
            stop_cause=StopCause.STOP.value,
            # A stop under way keeps its deadline.
            stop_seconds=None if stopping else seconds,
            reason=STOP_REQUESTED,
        )
    ]
