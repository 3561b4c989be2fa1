"""Read what happened to a run from the events of its session: every attempt, with the steps that it took."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row

from models.core.callers import Caller
from models.core.errors import NotFound
from models.core.retries import RetryPolicy, read_policy
from models.core.statuses import TERMINAL, RunStatus
from models.schema.sql import sql
from models.state.cursors import write_cursor
from models.state.pending_events import pending_events_of
from models.state.runs import Run, get_run

# Read no more steps of a run than its last ones; each claim has two to four.
MOST_STEPS: Final = 2_000

SUBMITTED: Final = "submitted"
REQUEUED: Final = "requeued"
DELIVERED: Final = "delivered"
STOP_SENT: Final = "stop_sent"
RETURNED: Final = "returned"

_STEPS = sql(
    """
    SELECT e.created_at, CAST(e.frame AS text) AS frame, e.feed_pos, (SELECT epoch FROM feed_head) AS epoch
    FROM (SELECT id, kind, run_id, frame, created_at, feed_pos FROM events WHERE session_id = :session_id
          UNION ALL
          SELECT id, kind, run_id, frame, created_at, NULL FROM ($pending) batched) e
    WHERE e.kind = 'run_updated' AND e.run_id = :run_id
    ORDER BY e.id DESC LIMIT :most
    """,
    pending=pending_events_of("CAST(:session_id AS text)"),
)

# What the row alone knows: of the claim in hand, and the retry policy.
_IN_HAND = sql("""
    SELECT r.delivered_at, c.sent_at, CAST(r.retry AS text) AS retry
    FROM runs r LEFT JOIN stop_commands c ON c.session_id = r.session_id AND c.run_id = r.run_id
    WHERE r.run_id = :run_id
""")


@dataclass(frozen=True, slots=True)
class Step:
    """Step of a run: ``what`` is its status from then on, `submitted`, `requeued`, `delivered` or `stop_sent`."""

    at: datetime
    what: str
    runner_id: str | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """Steps from one return to pending, or the submission, to the next; ``attempt`` is None if it was never started.

    ``ended_by`` is a status, RETURNED for a return without a report of a failure, or None for an attempt that goes on.
    ``failure`` as its runner reported it. The log of the attempt are the events of the run between the cursors
    ``log_after`` and ``log_before``; None is no bound.
    """

    attempt: int | None
    runner_id: str | None
    steps: list[Step]
    ended_by: str | None = None
    error: str | None = None
    failure: dict[str, Any] | None = None
    log_after: str | None = None
    log_before: str | None = None


@dataclass(frozen=True, slots=True)
class RunTimeline:
    """Attempts of a run, oldest first. ``truncated_before``: earlier steps are not kept any more, or too many."""

    run_id: str
    attempts: list[Attempt]
    truncated_before: datetime | None
    retry: RetryPolicy | None = None


def run_timeline(conn: Connection, caller: Caller, run_id: str) -> RunTimeline | NotFound:
    """Return the attempts of a run with their steps, for as long as events are kept."""
    run = get_run(conn, caller, run_id)
    if isinstance(run, NotFound):
        return run
    values = {"run_id": run_id, "session_id": run.session_id}
    rows = conn.execute(_STEPS, values | {"most": MOST_STEPS}).all()[::-1]
    found = [(row.created_at, json.loads(row.frame)["run"], _cursor(row)) for row in rows]
    attempts = _attempts(found)
    in_hand = conn.execute(_IN_HAND, {"run_id": run_id}).one_or_none()
    if attempts and in_hand is not None:
        _add(attempts[-1].steps, DELIVERED, in_hand.delivered_at, run)
        _add(attempts[-1].steps, STOP_SENT, in_hand.sent_at, run)
    whole = bool(found) and _is_first(found[0][1])
    since = run.created_at if not found else found[0][0]
    policy = None if in_hand is None or in_hand.retry is None else read_policy(in_hand.retry)
    return RunTimeline(run_id, attempts, None if whole else since, policy)


def _cursor(row: Row[Any]) -> str | None:
    return None if row.feed_pos is None else write_cursor(row.epoch, row.feed_pos)


def _is_first(shown: dict[str, Any]) -> bool:
    return shown["status"] == RunStatus.PENDING and shown["attempt"] == 0 and "reason" not in shown


def _attempts(found: Sequence[tuple[datetime, dict[str, Any], str | None]]) -> list[Attempt]:
    attempts: list[Attempt] = []
    steps: list[Step] = []
    runner_id, number, former, begun = None, None, None, None
    ended_by, error, failure = None, None, None
    for at, shown, cursor in found:
        status = shown["status"]
        detail = shown.get("reason") or shown["error"]
        if status == RunStatus.PENDING:
            # A run that waits for another is told of again when nothing happened to it.
            what = REQUEUED if former not in {None, RunStatus.PENDING} else SUBMITTED
            steps.append(Step(at, what, None, detail))
            if what == REQUEUED:
                failed: dict[str, Any] | None = shown.get("failure")
                ending = (RETURNED, detail) if failed is None else (RunStatus.FAILED.value, failed["error"])
                number = number if failed is None else shown["attempt"]
                attempts.append(Attempt(number, runner_id, steps, *ending, failed, begun, cursor))
                steps, runner_id, number, begun = [], None, None, cursor
        else:
            steps.append(Step(at, status, shown["runner_id"], detail))
            runner_id = shown["runner_id"] or runner_id
            if status in {RunStatus.RUNNING, RunStatus.STOPPING, *TERMINAL}:
                number = shown["attempt"] or None
            if status in TERMINAL:
                ended_by, error, failure = status, shown["error"], shown.get("failure")
        former = status
    if steps or not attempts:
        attempts.append(Attempt(number, runner_id, steps, ended_by, error, failure, begun))
    return attempts


def _add(steps: list[Step], what: str, at: datetime | None, run: Run) -> None:
    if at is None:
        return
    steps.append(Step(at, what, run.runner_id, None))
    steps.sort(key=lambda step: step.at)
