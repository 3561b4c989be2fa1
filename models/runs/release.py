from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from sqlalchemy import Connection, text

from models.core.callers import ADMIN, Caller
from models.core.errors import CoordinatorError, InvalidTransition, NotFound, RunnerNotRegistered, StaleClaim
from models.core.limits import DEFAULT_LIMITS, Limits
from models.core.statuses import TERMINAL, Cause, Outcome, RunStatus
from models.core.storable_text import storable_error
from models.runs.report import Reported, Reporter, is_reporter, report_runs, reporters
from models.runs.reports import Report
from models.state.child_results import calls_back
from models.state.endings import MAX_FAILED_DELIVERIES
from models.state.events_outbox import record_events, session_event
from models.state.locked_rows import LockedRun
from models.state.locks import LockedRows, apply_in_rounds, lock_runs
from models.state.session_status import ProcessChange, SessionChange
from models.state.transitions import Move, Moved, move_runs
from models.state.visibility import has_held

RELEASED: Final = "released"

_NOW = text("SELECT clock_timestamp()")


@dataclass(frozen=True, slots=True)
class ReleaseRun:
    run_id: str
    runner_id: str
    claim_token: str
    reason: str | None = None
    caller: Caller = ADMIN

    @property
    def subject(self) -> str | None:
        return self.caller.subject


Decision: TypeAlias = Move | Reported | StaleClaim | InvalidTransition


def release_runs(
    conn: Connection, items: Sequence[ReleaseRun], *, limits: Limits = DEFAULT_LIMITS
) -> list[Reported | CoordinatorError]:
    """Return each run to pending, undoing the start it may have counted, or answer why nothing is changed.

    Only for the holder, by its token. The session's timeline says `run_released` with the reason. A run that is
    released MAX_FAILED_DELIVERIES times in a row fails; one that is to be stopped is stopped. Safe to repeat.
    """
    known = reporters(conn, {item.runner_id for item in items}, limits)
    trusted = [item for item in items if is_reporter(known, item.runner_id, item.subject)]
    locked = lock_runs(conn, {item.run_id for item in trusted})
    results: list[Reported | CoordinatorError] = [_refusal(known, item) for item in items]
    concerned = {
        ordinal: item.run_id
        for ordinal, item in enumerate(items)
        if item.run_id in locked.runs
        and is_reporter(known, item.runner_id, item.subject)
        and has_held(locked.runs[item.run_id], known[item.runner_id].registration, item.subject)
    }

    def apply(
        locked: LockedRows, ordinals: list[int]
    ) -> tuple[list[Reported | CoordinatorError], dict[str, LockedRun]]:
        return _apply(conn, locked, [items[ordinal] for ordinal in ordinals], limits)

    for ordinal, answer in apply_in_rounds(conn, locked, concerned, apply).items():
        results[ordinal] = answer
    return results


def _refusal(known: Mapping[str, Reporter], item: ReleaseRun) -> CoordinatorError:
    if not is_reporter(known, item.runner_id, item.subject):
        return RunnerNotRegistered(item.runner_id)
    return NotFound("run", item.run_id)


def _apply(
    conn: Connection, locked: LockedRows, items: Sequence[ReleaseRun], limits: Limits
) -> tuple[list[Reported | CoordinatorError], dict[str, LockedRun]]:
    decisions = {item.run_id: decide(locked.runs[item.run_id], item) for item in items}
    moves = [decision for decision in decisions.values() if isinstance(decision, Move)]
    moved = move_runs(conn, moves)
    if moved.runs:
        reasons = {item.run_id: storable_error(item.reason or "") for item in items}
        moment = conn.execute(_NOW).scalar_one()
        rows = [session_event(run, "run_released", moment, reason=reasons[run.run_id]) for run in moved.runs.values()]
        record_events(conn, rows)
    stopping = [
        item for item in items if (moved.runs.get(item.run_id) or locked.runs[item.run_id]).status == RunStatus.STOPPING
    ]
    stopped = [
        Report(item.run_id, item.runner_id, Outcome.STOPPED, item.claim_token, caller=item.caller) for item in stopping
    ]
    ended = dict(zip([item.run_id for item in stopping], report_runs(conn, stopped, limits=limits), strict=True))
    return [ended.get(item.run_id) or _answer(decisions[item.run_id], moved) for item in items], moved.runs


def _answer(decision: Decision, moved: Moved) -> Reported | CoordinatorError:
    if not isinstance(decision, Move):
        return decision
    run = moved.runs.get(decision.run.run_id)
    if run is None:
        return StaleClaim(decision.run.run_id, decision.run.status)
    ends = run.status in TERMINAL and calls_back(run)
    owed = ends or moved.sessions[run.session_id].owed
    return Reported(run.run_id, run.session_id, run.status, changed=True, calls_back=owed, frees=True)


def decide(run: LockedRun, item: ReleaseRun) -> Decision:
    if (run.runner_id, run.claim_token) != (item.runner_id, item.claim_token):
        former = (run.last_ended_runner, run.last_ended_token, run.last_ended_outcome)
        if former == (item.runner_id, item.claim_token, RELEASED):
            return Reported(run.run_id, run.session_id, run.status, changed=False, frees=True)
        return StaleClaim(run.run_id, run.status)
    status = RunStatus(run.status)
    if status not in (RunStatus.CLAIMED, RunStatus.RUNNING):
        if run.last_ended_token == item.claim_token and run.last_ended_outcome == RELEASED:
            return Reported(run.run_id, run.session_id, run.status, changed=False)
        return InvalidTransition(run.run_id, run.status, RELEASED)
    started = status is RunStatus.RUNNING
    change = SessionChange(run.session_id, live=ProcessChange.CLEAR if started else ProcessChange.KEEP, sign=True)
    if run.failed_deliveries + 1 >= MAX_FAILED_DELIVERIES:
        change = replace(change, outcome="failed", unless_live=not started)
        error = (
            f"Given back or never started {MAX_FAILED_DELIVERIES} times; at last: {item.reason or 'no reason given'}"
        )
        return Move(
            run,
            RunStatus.FAILED,
            change,
            error=storable_error(error),
            by_us=True,
            failed_delivery=True,
            remember=RELEASED,
            cause=Cause.NEVER_STARTED,
        )
    return Move(
        run,
        RunStatus.PENDING,
        change,
        failed_delivery=True,
        unstarts=started,
        remember=RELEASED,
        cause=Cause.RELEASED,
        reason=storable_error(item.reason) or "The runner gave it back",
    )
