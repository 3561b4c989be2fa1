"""Locked rows for the pure decisions, made by hand: a run in any state, and its session."""

from types import SimpleNamespace
from typing import Any

from models.state.locks import LOCKED_COLUMNS, LockedRows

TOKEN = "token-of-the-claim"
RUNNER = "lnch_holder"


def run_row(status: str, **values: Any) -> Any:
    """Build a run in `status` with what belongs to it: holder and token once claimed, a start once running."""
    row: dict[str, Any] = dict.fromkeys(column.name for column in LOCKED_COLUMNS)
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
        "fruitless_claims": 0,
        "unheld_beats": 0,
        "ended_by_us": False,
    }
    if status != "pending":
        row |= {"runner_id": RUNNER, "registration": 7, "claim_token": TOKEN, "delivered_at": "12:00"}
    if status not in {"pending", "claimed"}:
        row |= {"started_at": "12:01", "attempt": 1}
    return SimpleNamespace(**{**row, **values})


def session_row(status: str, **values: Any) -> Any:
    """Build a session in `status`; without a live process unless one is given."""
    row = {"session_id": "ses_1", "status": status, "owner": None, "runner_id": None, "registration": None}
    return SimpleNamespace(**{**row, **values})


def locked_rows(session: Any, *runs: Any) -> LockedRows:
    """Build one session and its runs, as if locked."""
    return LockedRows(runs={run.run_id: run for run in runs}, sessions={session.session_id: session})
