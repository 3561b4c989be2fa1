"""Reported failures by the retry policy of their run: decisions only."""

from models.core.retries import RetryPolicy, read_policy, retry_delay
from models.core.statuses import Cause, Outcome, RunStatus
from models.runs.reports import Report, failure_of
from models.state.locked_rows import LockedRun
from models.state.session_status import ProcessChange, SessionChange
from models.state.transitions import Move

LONGEST_LINE = 200


def retried(run: LockedRun, report: Report, *, sends_tokens: bool) -> Move | None:
    """Return the return to pending of a run whose failure its policy tries again; None when the failure is final.

    The run stays unready until its backoff is over. As after a lost runner its session stays unfinished, and a
    registration that sends no tokens may not have it again.
    """
    if run.retry is None or report.outcome is not Outcome.FAILED:
        return None
    policy = read_policy(run.retry)
    starts = run.started_at is None
    attempt = run.attempt + (1 if starts else 0)
    failure = failure_of(report)
    delay = retry_delay(policy, failure, run_id=run.run_id, attempt=attempt)
    if delay is None:
        return None
    return Move(
        run,
        RunStatus.PENDING,
        SessionChange(run.session_id, live=ProcessChange.CLEAR, sign=True),
        starts=starts,
        excluded_registration=None if sends_tokens else run.registration,
        remember=report.outcome.value,
        cause=Cause.FAILED,
        reason=_reason(policy, attempt, failure.error),
        delay_seconds=delay or None,
        failure=failure,
    )


def _reason(policy: RetryPolicy, attempt: int, error: str | None) -> str:
    said = (error or "no error given").strip().partition("\n")[0]
    line = said if len(said) <= LONGEST_LINE else f"{said[: LONGEST_LINE - 1]}…"
    return f"Attempt {attempt} of {policy.max_attempts} failed: {line}"
