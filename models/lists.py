"""Lists of runs and sessions: newest first, page by page, with the feed's position in the same snapshot."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, cast, literal, select, true, tuple_
from sqlalchemy.dialects.postgresql import JSONB

from models.base import Caller
from models.cursors import write_cursor
from models.errors import BadCursor
from models.reach import in_scope
from models.runs import RUN_COLUMNS, Run, as_run
from models.sessions import SESSION_COLUMNS, Session, as_session
from models.statuses import RunStatus, SessionStatus
from models.tables import feed_head, runs, sessions


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs; empty means all. A status that does not exist finds nothing."""

    statuses: tuple[str, ...] = ()
    session_id: str | None = None
    runner_id: str | None = None
    agent_name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunPage:
    """Runs, how to ask for the next ones, and where a feed has to begin to miss nothing that comes after them."""

    runs: list[Run]
    next_cursor: str | None
    feed_cursor: str


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions; empty means all."""

    statuses: tuple[str, ...] = ()
    parent_session_id: str | None = None
    session_id: str | None = None
    run_id: str | None = None
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Sessions, how to ask for the next ones, and where a feed has to begin to miss nothing that comes after them."""

    sessions: list[Session]
    next_cursor: str | None
    feed_cursor: str


Key = tuple[datetime, str]


def write_key(created_at: datetime, row_id: str) -> str:
    """Return a cursor: opaque to clients, the last row's place in the order."""
    return base64.urlsafe_b64encode(json.dumps([created_at.isoformat(), row_id]).encode()).decode().rstrip("=")


def parse_key(cursor: str) -> Key | None:
    """Return the place a cursor names, None when it is none of ours."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        moment, row_id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        created_at = datetime.fromisoformat(moment)
    except (ValueError, TypeError, binascii.Error, RecursionError):
        return None
    if created_at.tzinfo is None or not isinstance(row_id, str) or "\x00" in row_id:
        return None
    try:
        row_id.encode()
    except UnicodeEncodeError:
        return None
    return created_at, row_id


def list_runs(
    conn: Connection,
    caller: Caller,
    which: RunFilter,
    *,
    limit: int,
    after: str | None = None,
) -> RunPage | BadCursor:
    """Return a page of runs, newest first (PROTOCOL, Submission); BadCursor for a cursor that is none of ours."""
    wanted: list[ColumnElement[bool]] = []
    if which.statuses:
        wanted.append(runs.c.status.in_(_known(which.statuses, RunStatus)))
    if which.session_id is not None:
        wanted.append(runs.c.session_id == which.session_id)
    if which.runner_id is not None:
        wanted.append(runs.c.runner_id == which.runner_id)
    if which.agent_name is not None:
        wanted.append(runs.c.agent_name == which.agent_name)
    if which.labels:
        wanted.append(runs.c.labels.op("@>")(cast(literal(dict(which.labels), JSONB), JSONB)))
    page = select(*RUN_COLUMNS).where(*wanted)
    found = _page(conn, caller, runs, runs.c.run_id, page, limit=limit, after=after)
    if isinstance(found, BadCursor):
        return found
    rows, next_cursor, feed_cursor = found
    return RunPage([as_run(row) for row in rows], next_cursor, feed_cursor)


def list_sessions(
    conn: Connection,
    caller: Caller,
    which: SessionFilter,
    *,
    limit: int,
    after: str | None = None,
) -> SessionPage | BadCursor:
    """Return a page of sessions, newest first (PROTOCOL, Sessions); BadCursor for a cursor that is none of ours."""
    wanted: list[ColumnElement[bool]] = []
    if which.statuses:
        wanted.append(sessions.c.status.in_(_known(which.statuses, SessionStatus)))
    if which.parent_session_id is not None:
        wanted.append(sessions.c.parent_session_id == which.parent_session_id)
    if which.session_id is not None:
        wanted.append(sessions.c.session_id == which.session_id)
    if which.run_id is not None:
        wanted.append(sessions.c.session_id.in_(select(runs.c.session_id).where(runs.c.run_id == which.run_id)))
    if which.owner is not None:
        wanted.append(sessions.c.owner == which.owner)
    page = select(*SESSION_COLUMNS).where(*wanted)
    found = _page(conn, caller, sessions, sessions.c.session_id, page, limit=limit, after=after)
    if isinstance(found, BadCursor):
        return found
    rows, next_cursor, feed_cursor = found
    return SessionPage([as_session(row) for row in rows], next_cursor, feed_cursor)


def _known(statuses: Sequence[str], known: type[RunStatus | SessionStatus]) -> list[str]:
    return [status for status in statuses if status in set(known)]


def _page(
    conn: Connection,
    caller: Caller,
    table: Table,
    row_id: ColumnElement[Any],
    page: Select[Any],
    *,
    limit: int,
    after: str | None,
) -> tuple[Sequence[Row[Any]], str | None, str] | BadCursor:
    """Read one page and the feed's head in one statement, so in one snapshot.

    What happens to the rows after it has a higher position than the head then, or none yet: a feed from there on may
    tell something twice, but leaves nothing out.
    """
    limited = in_scope(caller, table.c.owner, table.c.session_id)
    if limited is not None:
        page = page.where(limited)
    if after is not None:
        key = parse_key(after)
        if key is None:
            return BadCursor(after)
        page = page.where(tuple_(table.c.created_at, row_id) < tuple_(literal(key[0]), literal(key[1])))
    inner = page.order_by(table.c.created_at.desc(), row_id.desc()).limit(limit + 1).subquery("page")
    name = row_id.key or ""
    statement = (
        select(feed_head.c.epoch, feed_head.c.last_pos, *inner.c)
        .select_from(feed_head.outerjoin(inner, true()))
        .order_by(inner.c.created_at.desc(), inner.c[name].desc())
    )
    rows = conn.execute(statement).all()
    feed_cursor = write_cursor(rows[0].epoch, rows[0].last_pos)
    found = [row for row in rows if getattr(row, name) is not None]
    shown = found[:limit]
    next_cursor = write_key(shown[-1].created_at, getattr(shown[-1], name)) if len(found) > limit and shown else None
    return shown, next_cursor, feed_cursor
