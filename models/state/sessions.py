from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from models.core.callers import Caller
from models.core.errors import NotFound
from models.schema.columns import any_of, names_of
from models.schema.tables import sessions
from models.state.runs import iso
from models.state.visibility import can_view, find_visible


@dataclass(frozen=True, slots=True)
class Session:
    session_id: str
    status: str
    created_at: datetime
    project_dir: str | None
    agent_name: str | None
    last_resumed_at: datetime | None
    parent_session_id: str | None
    executor_session_id: str | None
    executor_profile: str | None
    hostname: str | None
    owner: str | None
    depth: int


SESSION_COLUMNS = tuple(sessions.c[field.name] for field in fields(Session))
SESSION_COLUMNS_OF_S = names_of("s", SESSION_COLUMNS)
_READ = select(*SESSION_COLUMNS).where(sessions.c.session_id == any_of("session_ids"))


def as_session(row: Sequence[Any]) -> Session:
    return Session(*row[: len(SESSION_COLUMNS)])


def session_json(session: Session) -> dict[str, Any]:
    return {
        "session_id": session.session_id,
        "status": session.status,
        "created_at": iso(session.created_at),
        "project_dir": session.project_dir,
        "agent_name": session.agent_name,
        "last_resumed_at": iso(session.last_resumed_at),
        "parent_session_id": session.parent_session_id,
        "executor_session_id": session.executor_session_id,
        "executor_profile": session.executor_profile,
        "hostname": session.hostname,
        "owner": session.owner,
        "depth": session.depth,
    }


def read_sessions(conn: Connection, session_ids: Sequence[str]) -> dict[str, Session]:
    if not session_ids:
        return {}
    rows = conn.execute(_READ, {"session_ids": list(session_ids)})
    return {row.session_id: as_session(row) for row in rows}


def get_session(conn: Connection, caller: Caller, session_id: str) -> Session | NotFound:
    """Return one session; NotFound for another owner's."""
    found = read_sessions(conn, [session_id]).get(session_id)
    if found is None or not can_view(caller, session_id, found.owner, find_visible(conn, [(caller, session_id)])):
        return NotFound("session", session_id)
    return found
