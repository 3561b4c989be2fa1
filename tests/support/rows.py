"""Locked rows for the pure decisions, made by hand: a run in any state, and its session."""

from dataclasses import fields
from typing import Any

from models.state.locked_rows import LockedRun, LockedSession
from models.state.locks import LockedRows

TOKEN = "token-of-the-claim"
RUNNER = "lnch_holder"


def run_row(status: str, **values: Any) -> LockedRun:
    """Build a run in `status` with what belongs to it: holder and token once claimed, a start once running."""
    row: dict[str, Any] = dict.fromkeys(field.name for field in fields(LockedRun))
    row |= {
        "run_id": "run_1",
        "session_id": "ses_1",
        "session_seq": 1,
        "type": "start_session",
        "execution_mode": "sync",
        "status": status,
        "ready": status == "pending",
        "attempt": 0,
        "max_attempts": 1,
        "failed_deliveries": 0,
        "missed_heartbeats": 0,
        "ended_by_us": False,
    }
    if status != "pending":
        row |= {"runner_id": RUNNER, "registration": 7, "claim_token": TOKEN, "delivered_at": "12:00"}
    if status not in {"pending", "claimed"}:
        row |= {"started_at": "12:01", "attempt": 1}
    return LockedRun(**{**row, **values})


def session_row(status: str, **values: Any) -> LockedSession:
    """Build a session in `status`; without a live process unless one is given."""
    row: dict[str, Any] = dict.fromkeys(field.name for field in fields(LockedSession))
    row |= {"session_id": "ses_1", "status": status, "depth": 0, "next_run": 2}
    return LockedSession(**{**row, **values})


def locked_rows(session: LockedSession, *runs: LockedRun) -> LockedRows:
    """Build one session and its runs, as if locked."""
    return LockedRows(runs={run.run_id: run for run in runs}, sessions={session.session_id: session})
