"""Runs as they are read: the row as an object, one by id."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Row, TextClause, select, text

from models.base import Caller, JsonText, any_of
from models.errors import NotFound
from models.reach import reach, sees
from models.statuses import TERMINAL
from models.tables import runs


@dataclass(frozen=True, slots=True)
class Run:
    """One unit of work. ``parameters``, ``demands`` and ``scope`` are JSON text, ``labels`` an object or None."""

    run_id: str
    session_id: str
    type: str
    agent_name: str | None
    parameters: str
    project_dir: str | None
    parent_session_id: str | None
    execution_mode: str
    demands: str
    labels: dict[str, str] | None
    scope: str | None
    status: str
    runner_id: str | None
    error: str | None
    created_at: datetime
    claimed_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    match_deadline_at: datetime | None
    not_before: datetime | None
    attempt: int
    max_attempts: int
    priority: int
    claim_token: str | None
    claim_poll_id: str | None
    owner: str | None


RUN_COLUMNS = tuple(runs.c[field.name] for field in fields(Run))
_IN_ORDER = attrgetter(*(field.name for field in fields(Run)))
# Made once: to make a statement of so many columns takes longer than to read a row.
_READ = select(*RUN_COLUMNS).where(runs.c.run_id == any_of("run_ids"))
_READ_ENDED = _READ.where(runs.c.status.in_(sorted(TERMINAL)))
_COLUMNS_OF_R = ", ".join(
    f"CAST(r.{column.name} AS text)" if isinstance(column.type, JsonText) else f"r.{column.name}"
    for column in RUN_COLUMNS
)


def returning_runs(statement: str) -> TextClause:
    """Return a statement that changes runs, called r in it, and answers with ``.columns(*RUN_COLUMNS)``."""
    return text(statement + " RETURNING " + _COLUMNS_OF_R)


def as_run(row: Row[Any]) -> Run:
    """Return the object for a row that holds at least ``RUN_COLUMNS``, by name."""
    return Run(*_IN_ORDER(row))


def iso(moment: datetime | None) -> str | None:
    """Return a timestamp as PROTOCOL writes it: ISO 8601, in UTC, with offset."""
    return None if moment is None else moment.astimezone(UTC).isoformat()


def read_runs(conn: Connection, run_ids: Sequence[str]) -> dict[str, Run]:
    """Return the runs by id, without locks; unknown ids are left out."""
    if not run_ids:
        return {}
    rows = conn.execute(_READ, {"run_ids": list(run_ids)})
    return {row.run_id: as_run(row) for row in rows}


def get_run(conn: Connection, caller: Caller, run_id: str) -> Run | NotFound:
    """Return one run; another owner's is not found (PROTOCOL, Submission)."""
    found = read_runs(conn, [run_id]).get(run_id)
    if found is None or not sees(caller, found.session_id, found.owner, reach(conn, [(caller, found.session_id)])):
        return NotFound("run", run_id)
    return found


def runs_ended(conn: Connection, run_ids: Sequence[str]) -> list[Run]:
    """Return those of the runs that are terminal: what ``?wait=`` waits for."""
    rows = conn.execute(_READ_ENDED, {"run_ids": list(run_ids)})
    return [as_run(row) for row in rows]
