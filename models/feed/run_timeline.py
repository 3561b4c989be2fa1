"""Read what happened to a run from the events of its session: every attempt, with the steps that it took."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from models.core.callers import Caller
from models.core.errors import NotFound
from models.core.statuses import TERMINAL, RunStatus
from models.schema.sql import sql
from models.state.pending_events import pending_events_of
from models.state.runs import Run, get_run

# Read no more steps of a run than its last ones; each claim has two to four.
MOST_STEPS: Final = 2_000

SUBMITTED: Final = "submitted"
REQUEUED: Final = "requeued"
DELIVERED: Final = "delivered"
STOP_SENT: Final = "stop_sent"

_STEPS = sql(
    """
    SELECT e.created_at, CAST(e.frame AS text) AS frame
    FROM (SELECT id, kind, run_id, frame, created_at FROM events WHERE session_id = :session_id
          UNION ALL
          SELECT id, kind, run_id, frame, created_at FROM ($pending) batched) e
    WHERE e.kind = 'run_updated' AND e.run_id = :run_id
    ORDER BY e.id DESC LIMIT :most
    """,
    pending=pending_events_of("CAST(:session_id AS text)"),
)

# What the row alone knows, of the claim in hand.
_IN_HAND = sql("""
    SELECT r.delivered_at, c.sent_at
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
    """Steps from one return to pending, or the submission, to the next; ``attempt`` is None if it was never started."""

    attempt: int | None
    runner_id: str | None
    steps: list[Step]


@dataclass(frozen=True, slots=True)
class RunTimeline:
    """Attempts of a run, oldest first. ``truncated_before``: earlier steps are not kept any more, or too many."""

    run_id: str
    attempts: list[Attempt]
    truncated_before: datetime | None


def run_timeline(conn: Connection, caller: Caller, run_id: str) -> RunTimeline | NotFound:
    """Return the attempts of a run with their steps, for as long as events are kept."""
    run = get_run(conn, caller, run_id)
    if isinstance(run, NotFound):
        return run
    values = {"run_id": run_id, "session_id": run.session_id}
    rows = conn.execute(_STEPS, values | {"most": MOST_STEPS}).all()[::-1]
    found = [(row.created_at, json.loads(row.frame)["run"]) for row in rows]
    attempts = _attempts(found)
    in_hand = conn.execute(_IN_HAND, {"run_id": run_id}).one_or_none()
    if attempts and in_hand is not None:
        _add(attempts[-1].steps, DELIVERED, in_hand.delivered_at, run)
        _add(attempts[-1].steps, STOP_SENT, in_hand.sent_at, run)
    whole = bool(found) and _is_first(found[0][1])
    since = run.created_at if not found else found[0][0]
    return RunTimeline(run_id, attempts, None if whole else since)


def _is_first(shown: dict[str, Any]) -> bool:
    return shown["status"] == RunStatus.PENDING and shown["attempt"] == 0 and "reason" not in shown


def _attempts(found: Sequence[tuple[datetime, dict[str, Any]]]) -> list[Attempt]:
    attempts: list[Attempt] = []
    steps: list[Step] = []
    runner_id, number, former = None, None, None
    for at, shown in found:
        status = shown["status"]
        detail = shown.get("reason") or shown["error"]
        if status == RunStatus.PENDING:
            # A run that waits for another is told of again when nothing happened to it.
            what = REQUEUED if former not in {None, RunStatus.PENDING} else SUBMITTED
            steps.append(Step(at, what, None, detail))
            if what == REQUEUED:
                attempts.append(Attempt(number, runner_id, steps))
                steps, runner_id, number = [], None, None
        else:
            steps.append(Step(at, status, shown["runner_id"], detail))
            runner_id = shown["runner_id"] or runner_id
            if status in {RunStatus.RUNNING, RunStatus.STOPPING, *TERMINAL}:
                number = shown["attempt"] or None
        former = status
    if steps or not attempts:
        attempts.append(Attempt(number, runner_id, steps))
    return attempts


def _add(steps: list[Step], what: str, at: datetime | None, run: Run) -> None:
    if at is None:
        return
    steps.append(Step(at, what, run.runner_id, None))
    steps.sort(key=lambda step: step.at)
