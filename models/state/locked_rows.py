"""Rows of runs and sessions as verbs lock and decide on them; a locked column is one field here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Table

from models.schema.columns import names_of
from models.schema.tables import runs, sessions


@dataclass(frozen=True, slots=True)
class LockedRun:
    """Run as it is locked, or as the statement that moved it left it.

    ``excluded_registrations`` may not claim it again; ``failed_deliveries`` counts delivered claims in a row that ended
    before their start, ``missed_heartbeats`` those in a row that did not name it. ``retry`` is its policy as JSON text.
    """

    run_id: str
    session_id: str
    session_seq: int
    owner: str | None
    type: str
    parent_session_id: str | None
    execution_mode: str
    status: str
    ready: bool
    runner_id: str | None
    registration: int | None
    claim_token: str | None
    claimed_by: str | None
    claimed_by_registration: int | None
    former_holders: list[str] | None
    excluded_registrations: list[int] | None = field(metadata={"column": "not_for"})
    attempt: int
    max_attempts: int
    run_timeout_seconds: int | None
    failed_deliveries: int = field(metadata={"column": "fruitless_claims"})
    stop_cause: str | None
    ended_by_us: bool
    last_ended_token: str | None
    last_ended_runner: str | None
    last_ended_outcome: str | None
    error: str | None
    delivered_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    claim_deadline_at: datetime | None
    run_deadline_at: datetime | None
    missed_heartbeats: int = field(metadata={"column": "unheld_beats"})
    traceparent: str | None = None
    retry: str | None = None

    @property
    def holder(self) -> tuple[str, int]:
        """Runner and registration that have the run in hand; raises ValueError for a run that is not in hand."""
        if self.runner_id is None or self.registration is None:
            msg = f"a {self.status} run is not in hand"
            raise ValueError(msg)
        return self.runner_id, self.registration


@dataclass(frozen=True, slots=True)
class LockedSession:
    session_id: str
    owner: str | None
    depth: int
    status: str
    next_run: int
    project_dir: str | None
    agent_name: str | None
    parent_session_id: str | None
    executor_profile: str | None
    hostname: str | None
    runner_id: str | None
    registration: int | None
    scope: str | None

    @property
    def process(self) -> tuple[str, int] | None:
        """Runner and registration that keep the session's process alive; None without one."""
        if self.runner_id is None or self.registration is None:
            return None
        return self.runner_id, self.registration


def _columns(table: Table, kind: type[LockedRun | LockedSession]) -> tuple[ColumnElement[Any], ...]:
    return tuple(table.c[field.metadata.get("column", field.name)] for field in fields(kind))


LOCKED_RUN_COLUMNS = _columns(runs, LockedRun)
LOCKED_SESSION_COLUMNS = _columns(sessions, LockedSession)
LOCKED_RUN_COLUMNS_OF_R = names_of("r", LOCKED_RUN_COLUMNS)


def as_locked_run(row: Sequence[Any]) -> LockedRun:
    return LockedRun(*row[: len(LOCKED_RUN_COLUMNS)])


def runs_by_id(rows: Iterable[Sequence[Any]]) -> dict[str, LockedRun]:
    return {run.run_id: run for run in map(as_locked_run, rows)}


def sessions_by_id(rows: Iterable[Sequence[Any]]) -> dict[str, LockedSession]:
    return {session.session_id: session for session in (LockedSession(*row) for row in rows)}
