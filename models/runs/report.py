from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from sqlalchemy import Connection, text

from models.auth.audit import Act, AuditedAct, audited_report, record_acts
from models.core.errors import CoordinatorError, InvalidTransition, NotFound, RunnerNotRegistered, StaleClaim
from models.core.limits import DEFAULT_LIMITS, Limits
from models.core.statuses import IN_HAND, TERMINAL, Cause, Outcome, RunStatus, RunType, SessionStatus, StopCause
from models.runs.parents import set_parents
from models.runs.reports import Report, error_of_run, failure_of
from models.runs.retries import retried
from models.runs.stop import OpenStop, close_stops, read_stops
from models.runs.superseded import end_former_processes
from models.schema.sql import sql
from models.state.child_results import calls_back
from models.state.endings import attempts_left, idle_stopped, timeout_reason
from models.state.locked_rows import LockedRun
from models.state.locks import LockedRows, apply_in_rounds, lock_runs
from models.state.session_status import ProcessChange, SessionChange
from models.state.transitions import Move, Moved, move_runs, update_status_and_record
from models.state.visibility import acts_for, has_held

IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Reported:
    """State of the run after an accepted report; ``changed`` is False for a repeat.

    ``calls_back``: a callback may be due now, to this run's parent or of its own session's children. ``frees``: another
    run may have become claimable. ``runner_to_notify``: the runner that has a stop of the session's former process to
    be told, if any.
    """

    run_id: str
    session_id: str
    status: str
    changed: bool
    calls_back: bool = False
    frees: bool = False
    runner_to_notify: str | None = field(default=None, compare=False)


ReportResult: TypeAlias = Reported | CoordinatorError
Decision: TypeAlias = Move | Reported | StaleClaim | InvalidTransition

MOVES_TO: Final = {
    Outcome.STARTED: RunStatus.RUNNING,
    Outcome.COMPLETED: RunStatus.COMPLETED,
    Outcome.FAILED: RunStatus.FAILED,
    Outcome.STOPPED: RunStatus.STOPPED,
}

# Accept reports for the lost interval after a runner was told to leave; a stale or lost one is back with this request.
IS_REPORTER: Final = """left_at IS NULL
      AND (leave_told_at IS NULL
           OR leave_told_at > now() - make_interval(secs => greatest(:lost_after, 3 * told_interval)))
      AND (last_seen > now() - make_interval(secs => :forget_runner)
           OR last_seen >= (SELECT silent_before(CAST(:forget_runner AS float))))"""
_REPORTERS = sql(
    """
    SELECT runner_id, registration, owner, sends_tokens, capacity FROM runners
    WHERE runner_id = ANY(CAST(:runner_ids AS text[])) AND $is_reporter
""",
    is_reporter=IS_REPORTER,
)

# Leave a locked row to the next report: a heartbeat's lock must not stop a batch of reports.
_SENDS_TOKENS = text("""
    WITH first AS MATERIALIZED (
        SELECT runner_id FROM runners WHERE runner_id = ANY(CAST(:runner_ids AS text[])) AND NOT sends_tokens
        ORDER BY runner_id FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE runners SET sends_tokens = true FROM first WHERE runners.runner_id = first.runner_id
""")


@dataclass(frozen=True, slots=True)
class Reporter:
    runner_id: str
    registration: int
    owner: str | None
    sends_tokens: bool
    capacity: int | None


def reporters(conn: Connection, runner_ids: Collection[str], limits: Limits) -> dict[str, Reporter]:
    values = {
        "runner_ids": sorted(set(runner_ids)),
        "lost_after": limits.lost_after,
        "forget_runner": limits.forget_runner,
    }
    return {row.runner_id: Reporter(*row) for row in conn.execute(_REPORTERS, values)}


def is_reporter(known: Mapping[str, Reporter], runner_id: str, subject: str | None) -> bool:
    return runner_id in known and acts_for(subject, known[runner_id].owner)


def report_runs(
    conn: Connection,
    items: Sequence[Report],
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> list[ReportResult]:
    """Apply each report to its run, session and history, or answer why it changes nothing (promise 1).

    A report counts only from the run's current runner, and with the run's current token if it carries one. Repeating
    one that took effect is accepted and changes nothing. NotFound for a subject that never held the run. Results:
    Reported, NotFound, RunnerNotRegistered, StaleClaim or InvalidTransition.
    """
    known = reporters(conn, {item.runner_id for item in items}, limits)
    locked = lock_runs(conn, {item.run_id for item in items if is_reporter(known, item.runner_id, item.subject)})
    results: list[ReportResult] = [NotFound("run", item.run_id) for item in items]
    concerned: dict[int, str] = {}
    for ordinal, item in enumerate(items):
        if not is_reporter(known, item.runner_id, item.subject):
            results[ordinal] = RunnerNotRegistered(item.runner_id)
        elif item.run_id in locked.runs and has_held(
            locked.runs[item.run_id], known[item.runner_id].registration, item.subject
        ):
            concerned[ordinal] = item.run_id

    def apply(locked: LockedRows, ordinals: list[int]) -> tuple[list[ReportResult], dict[str, LockedRun]]:
        return _apply(conn, locked, [items[ordinal] for ordinal in ordinals], known, limits)

    for ordinal, answer in apply_in_rounds(conn, locked, concerned, apply).items():
        results[ordinal] = answer
    newly = {item.runner_id for item in items if item.claim_token and is_reporter(known, item.runner_id, item.subject)}
    newly = {runner_id for runner_id in newly if not known[runner_id].sends_tokens}
    if newly:
        conn.execute(_SENDS_TOKENS, {"runner_ids": sorted(newly)})
    return results


def _apply(
    conn: Connection,
    locked: LockedRows,
    items: Sequence[Report],
    known: dict[str, Reporter],
    limits: Limits,
) -> tuple[list[ReportResult], dict[str, LockedRun]]:
    stopping = {
        run.session_id
        for run in (locked.runs[item.run_id] for item in items)
        if run.status == RunStatus.STOPPING or locked.sessions[run.session_id].status == SessionStatus.STOPPING
    }
    stops = read_stops(conn, stopping)
    decisions: list[Decision] = []
    closed: list[str] = []
    changes: list[SessionChange] = []
    for item in items:
        run = locked.runs[item.run_id]
        decision = decide(run, item, sends_tokens=known[item.runner_id].sends_tokens)
        decisions.append(decision)
        if closes_stop(stops.get(run.session_id), run, item):
            closed.append(run.session_id)
            if not isinstance(decision, Move):
                changes.append(_change_of_closing(locked, run, item))
        elif isinstance(decision, Reported) and decision.status == RunStatus.RUNNING:
            # Record a sign: by asking whether the run is still its own the runner shows that it has it.
            changes.append(SessionChange(run.session_id, sign=True))
    close_stops(conn, closed)
    moves = [decision for decision in decisions if isinstance(decision, Move)]
    moves = set_parents(conn, locked, moves, limits.max_depth)
    former = end_former_processes(conn, locked, moves, limits)
    moved = move_runs(conn, moves)
    update_status_and_record(conn, changes)
    record_acts(conn, _acts(locked, items, decisions, known))
    answers: list[ReportResult] = [
        _moved(moved, item.run_id, known[item.runner_id], former) if isinstance(decision, Move) else decision
        for item, decision in zip(items, decisions, strict=True)
    ]
    return answers, moved.runs


def _acts(
    locked: LockedRows, items: Sequence[Report], decisions: Sequence[Decision], known: Mapping[str, Reporter]
) -> list[AuditedAct]:
    return [
        act
        for item, decision in zip(items, decisions, strict=True)
        if isinstance(decision, Move) and item.outcome is not Outcome.STARTED
        for act in audited_report(
            item.caller, Act.RUN_ENDED, item.run_id, locked.runs[item.run_id].owner, known[item.runner_id].owner
        )
    ]


def _moved(moved: Moved, run_id: str, runner: Reporter, former: Mapping[str, str]) -> Reported:
    run = moved.runs[run_id]
    session = moved.sessions[run.session_id]
    ends = run.status in TERMINAL and calls_back(run)
    # Expect a claimable run: the session's next one or, at a runner with a capacity, any.
    frees = run.status != RunStatus.RUNNING and (session.continues or runner.capacity is not None)
    return Reported(
        run.run_id,
        run.session_id,
        run.status,
        changed=True,
        calls_back=ends or session.owed,
        frees=frees,
        runner_to_notify=former.get(run.session_id),
    )


def decide(run: LockedRun, report: Report, *, sends_tokens: bool) -> Decision:
    status = RunStatus(run.status)
    undelivered = status is RunStatus.CLAIMED and run.delivered_at is None and report.claim_token is None
    if undelivered or not _holds(run.runner_id, run.claim_token, report):
        # Treat a report without a token as one about an earlier claim: an undelivered claim has no process.
        return _former_end(run, report)
    if status is RunStatus.CLAIMED or (status is RunStatus.RUNNING and report.outcome is not Outcome.STARTED):
        sends = sends_tokens or report.claim_token is not None
        return retried(run, report, sends_tokens=sends) or _move(run, report)
    if status is RunStatus.RUNNING or (status is RunStatus.STOPPING and report.outcome is Outcome.STARTED):
        return _accepted(run)
    if status is RunStatus.STOPPING:
        if run.stop_cause == StopCause.TIMEOUT:
            return _timed_out(run, report, sends_tokens=sends_tokens or report.claim_token is not None)
        return _move(run, report)
    if status in TERMINAL:
        return _repeated_end(run, report)
    return StaleClaim(run.run_id, run.status, run.session_id)


def _holds(runner_id: str | None, token: str | None, report: Report) -> bool:
    return runner_id == report.runner_id and report.claim_token in {None, token}


def _former_end(run: LockedRun, report: Report) -> Decision:
    """Answer a runner that is not the current holder: its claim may have ended with a report that sent the run back."""
    if run.last_ended_outcome is None or not _holds(run.last_ended_runner, run.last_ended_token, report):
        return StaleClaim(run.run_id, run.status, run.session_id)
    if run.last_ended_outcome not in tuple(Outcome):
        # Refuse: after a release a report about the run is void.
        return StaleClaim(run.run_id, run.status, run.session_id)
    return _same_or_invalid(run, report, run.last_ended_outcome)


def _repeated_end(run: LockedRun, report: Report) -> Decision:
    if run.ended_by_us:
        if report.outcome is Outcome.STARTED:
            return InvalidTransition(run.run_id, run.status, report.outcome.value, run.session_id)
        return _accepted(run)
    reported = run.last_ended_outcome if run.last_ended_token == run.claim_token else run.status
    return _same_or_invalid(run, report, reported)


def _same_or_invalid(run: LockedRun, report: Report, ended: str | None) -> Decision:
    if report.outcome is Outcome.STARTED or report.outcome.value == ended:
        return _accepted(run)
    return InvalidTransition(run.run_id, run.status, report.outcome.value, run.session_id)


def _accepted(run: LockedRun) -> Reported:
    # Let a repeat notify as well: the wake-ups of the first time may be lost.
    return Reported(run.run_id, run.session_id, run.status, changed=False, frees=run.status != RunStatus.RUNNING)


def _move(run: LockedRun, report: Report) -> Move:
    """Return the reported move; an end report of a run whose start was never reported starts it too."""
    started = report.outcome is Outcome.STARTED
    outcome = outcome_of_session(report)
    lives = started or outcome == IDLE
    starts = run.started_at is None
    resumes = starts and run.type == RunType.RESUME
    change = SessionChange(
        run.session_id,
        outcome,
        live=ProcessChange.SET if lives else ProcessChange.CLEAR,
        runner_id=run.runner_id if lives else None,
        registration=run.registration if lives else None,
        resumed=resumes,
        parent_session_id=run.parent_session_id if resumes else None,
        sign=True,
    )
    is_stopped = report.outcome is Outcome.STOPPED and run.status == RunStatus.STOPPING
    cause = Cause.STOPPED if is_stopped else Cause.REPORTED
    failure = failure_of(report) if run.retry is not None and report.outcome is Outcome.FAILED else None
    error = error_of_run(report)
    return Move(run, MOVES_TO[report.outcome], change, error=error, starts=starts, cause=cause, failure=failure)


def outcome_of_session(report: Report) -> str | None:
    """Return what the session shows after the reported end once nothing unfinished is left; None for a start."""
    if report.outcome is Outcome.STARTED:
        return None
    if report.outcome is Outcome.COMPLETED:
        return IDLE if report.session_status == IDLE else "finished"
    return report.outcome.value


def _timed_out(run: LockedRun, report: Report, *, sends_tokens: bool) -> Move:
    outcome = report.outcome.value
    if attempts_left(run):
        excluded = None if sends_tokens else run.registration
        change = SessionChange(run.session_id, live=ProcessChange.CLEAR)
        return Move(
            run,
            RunStatus.PENDING,
            change,
            excluded_registration=excluded,
            remember=outcome,
            cause=Cause.TIMEOUT,
            reason=timeout_reason(run),
        )
    change = SessionChange(run.session_id, "failed", live=ProcessChange.CLEAR)
    return Move(run, RunStatus.FAILED, change, error=timeout_reason(run), remember=outcome, cause=Cause.TIMEOUT)


def closes_stop(stop: OpenStop | None, run: LockedRun, report: Report) -> bool:
    """Return whether a report, accepted or not, answers the open stop of its session (ARCHITECTURE, Stops).

    A turn that ends with its process alive does not: the process is to be stopped, unless the stop was for the run's
    time limit.
    """
    if stop is None or report.outcome is Outcome.STARTED or stop.runner_id != report.runner_id:
        return False
    if stop.run_id is not None and stop.run_id != run.run_id:
        return False
    lives_on = report.outcome is Outcome.COMPLETED and report.session_status == IDLE
    return not lives_on or run.stop_cause == StopCause.TIMEOUT


def _change_of_closing(locked: LockedRows, run: LockedRun, report: Report) -> SessionChange:
    in_hand = any(other.status in IN_HAND for other in locked.unfinished_of(run.session_id))
    if not in_hand and locked.sessions[run.session_id].runner_id == report.runner_id:
        return idle_stopped(run.session_id)
    return SessionChange(run.session_id)
