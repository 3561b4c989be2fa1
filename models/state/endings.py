"""Ends of runs without a report of their runner: released, lost, timed out, unmatched. Decisions only.

Each takes a locked row and returns the move for ``move_runs``; nothing here reads or writes.
"""

from dataclasses import replace
from typing import assert_never

from models.core.statuses import Cause, RunStatus, StopCause
from models.state.locked_rows import LockedRun
from models.state.session_status import ProcessChange, SessionChange
from models.state.transitions import Move

MAX_FAILED_DELIVERIES = 10
# Take a delivered claim as never received after so many heartbeats in a row without it, after a later poll.
# A change needs a revision: the condition of the index ix_runs_unheld repeats the number.
MAX_MISSED_HEARTBEATS = 2
NOT_RECEIVED = "The runner did not receive it"
NOT_STARTED = "The runner did not start it in time"
NO_END = "The runner reported no end after the stop"
NEVER_STARTED = f"Claimed {MAX_FAILED_DELIVERIES} times, never started"


def lost_reason(seconds: float) -> str:
    return f"Runner lost: no sign of life for {round(seconds)} s"


def timeout_reason(run: LockedRun) -> str:
    return f"Run timed out after {run.run_timeout_seconds} s"


def attempts_left(run: LockedRun) -> bool:
    return run.attempt < run.max_attempts


def release(run: LockedRun, *, sends_tokens: bool, gone: bool = False, reason: str | None = None) -> Move:
    """Decide on a claim that ends before its start (PROTOCOL, Runs: claimed → pending, failed).

    A delivered one of a runner that never sent a token excludes its registration from the run, so that a report without
    a token can only mean one claim; one that never arrived excludes none. ``gone``: the runner is gone too, and the
    session's live process with it, for the ``reason``.
    """
    delivered = run.delivered_at is not None
    # Clear only its own: the session's process may be another runner's, idle since the turn before.
    live = ProcessChange.CLEAR if gone else ProcessChange.KEEP
    change = SessionChange(run.session_id, live=live, registration=run.registration)
    if delivered and run.failed_deliveries + 1 >= MAX_FAILED_DELIVERIES:
        change = replace(change, outcome="failed", unless_live=not gone)
        return Move(
            run,
            RunStatus.FAILED,
            change,
            error=NEVER_STARTED,
            by_us=True,
            failed_delivery=True,
            cause=Cause.NEVER_STARTED,
        )
    received = delivered and run.missed_heartbeats < MAX_MISSED_HEARTBEATS
    excluded = run.registration if received and not sends_tokens else None
    cause = Cause.LOST if gone else Cause.START if delivered else Cause.CLAIM
    return Move(
        run,
        RunStatus.PENDING,
        change,
        excluded_registration=excluded,
        failed_delivery=delivered,
        cause=cause,
        reason=reason or (NOT_STARTED if received else NOT_RECEIVED),
    )


def lose(run: LockedRun, *, reason: str, sends_tokens: bool) -> Move:
    """Decide on a run in hand whose runner is lost, has left, or does not hold it any more.

    ``reason`` is the error of a running run without attempts left. Raises ValueError for a run that is not in hand.
    """
    match RunStatus(run.status):
        case RunStatus.CLAIMED:
            return release(run, sends_tokens=sends_tokens, gone=True, reason=reason)
        case RunStatus.RUNNING:
            return _again_or_failed(run, reason, Cause.LOST, sends_tokens=sends_tokens)
        case RunStatus.STOPPING:
            return give_up_stop(run, sends_tokens=sends_tokens, reason=reason)
        case RunStatus.PENDING | RunStatus.COMPLETED | RunStatus.FAILED | RunStatus.STOPPED:
            msg = f"a {run.status} run is not in hand"
            raise ValueError(msg)
        case status:
            assert_never(status)


def time_out(run: LockedRun, *, stop_seconds: float) -> Move:
    """Decide on a running run past its own limit: stop it first; the end of the stop retries or fails it."""
    return Move(
        run,
        RunStatus.STOPPING,
        SessionChange(run.session_id),
        stop_cause=StopCause.TIMEOUT.value,
        stop_seconds=stop_seconds,
        reason=timeout_reason(run),
    )


def give_up_stop(run: LockedRun, *, sends_tokens: bool, reason: str = NO_END) -> Move:
    """Decide on a stopping run whose runner did not report an end in time, or cannot any more."""
    if run.stop_cause == StopCause.TIMEOUT:
        return _again_or_failed(run, timeout_reason(run), Cause.TIMEOUT, sends_tokens=sends_tokens)
    change = SessionChange(run.session_id, "stopped", live=ProcessChange.CLEAR)
    return Move(run, RunStatus.STOPPED, change, by_us=True, cause=Cause.STOPPED, reason=reason)


def unmatched(run: LockedRun, *, error: str) -> Move:
    """Decide on a pending run that no live runner satisfied in time; a session with a live process goes back to idle.

    ``error`` names what no runner offers (``models.expiry.no_match``).
    """
    change = SessionChange(run.session_id, "failed", unless_live=True)
    return Move(run, RunStatus.FAILED, change, error=error, by_us=True, cause=Cause.NO_MATCH)


def idle_lost(session_id: str) -> SessionChange:
    return SessionChange(session_id, "finished", live=ProcessChange.CLEAR)


def idle_stopped(session_id: str) -> SessionChange:
    return SessionChange(session_id, "stopped", live=ProcessChange.CLEAR)


def _again_or_failed(run: LockedRun, reason: str, cause: Cause, *, sends_tokens: bool) -> Move:
    if attempts_left(run):
        excluded = None if sends_tokens else run.registration
        return Move(
            run,
            RunStatus.PENDING,
            SessionChange(run.session_id, live=ProcessChange.CLEAR),
            excluded_registration=excluded,
            cause=cause,
            reason=reason,
        )
    return Move(
        run,
        RunStatus.FAILED,
        SessionChange(run.session_id, "failed", live=ProcessChange.CLEAR),
        error=reason,
        by_us=True,
        cause=cause,
    )
