import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB

from models.core.callers import Caller, Role
from models.core.errors import BadCursor
from models.core.statuses import RunStatus, SessionStatus
from models.schema.columns import any_of
from models.schema.sql import literals, sql
from models.schema.tables import feed_head, runs, sessions
from models.state.cursors import write_cursor
from models.state.runs import RUN_COLUMNS, Run, as_run
from models.state.sessions import SESSION_COLUMNS, Session, as_session
from models.state.visibility import in_scope


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Filter of runs; empty means all. A status that does not exist finds nothing."""

    statuses: tuple[str, ...] = ()
    session_id: str | None = None
    runner_id: str | None = None
    agent_name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunPage:
    """Page of runs; a feed from ``feed_cursor`` on misses no later change of them."""

    runs: list[Run]
    next_cursor: str | None
    feed_cursor: str


@dataclass(frozen=True, slots=True)
class SessionFilter:
    statuses: tuple[str, ...] = ()
    parent_session_id: str | None = None
    session_id: str | None = None
    run_id: str | None = None
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class SessionPage:
    sessions: list[Session]
    next_cursor: str | None
    feed_cursor: str


PageKey = tuple[datetime, str]
Item = TypeVar("Item")

# End a page after so many stored bytes, counting so many per row for its small columns: a page stays in memory while
# its client does not read.
PAGE_BYTES = 256 * 1024
ROW_BYTES = 512


def write_key(created_at: datetime, row_id: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([created_at.isoformat(), row_id]).encode()).decode().rstrip("=")


def parse_key(cursor: str) -> PageKey | None:
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


@dataclass(frozen=True, slots=True, eq=False)
class Listed(Generic[Item]):
    kind: Callable[[Sequence[Any]], Item]
    table: Table
    row_id: ColumnElement[Any]
    shown: Sequence[ColumnElement[Any]]
    conditions: Mapping[str, ColumnElement[bool]]
    # Columns whose values may be large.
    large: Sequence[ColumnElement[Any]] = ()
    # Name of the column that pages are in the order of, newest first.
    moment: str = "created_at"


RUN_CONDITIONS: Mapping[str, ColumnElement[bool]] = {
    "statuses": runs.c.status == any_of("statuses"),
    "session_id": runs.c.session_id == bindparam("session_id"),
    "runner_id": runs.c.runner_id == bindparam("runner_id"),
    "agent_name": runs.c.agent_name == bindparam("agent_name"),
    "labels": runs.c.labels.op("@>")(cast(bindparam("labels", type_=JSONB), JSONB)),
}
LARGE_OF_RUNS = (runs.c.parameters, runs.c.scope, runs.c.error, runs.c.labels, runs.c.demands)
_RUNS = Listed(as_run, runs, runs.c.run_id, RUN_COLUMNS, RUN_CONDITIONS, LARGE_OF_RUNS)
_SESSIONS = Listed(
    as_session,
    sessions,
    sessions.c.session_id,
    SESSION_COLUMNS,
    {
        "statuses": sessions.c.status == any_of("statuses"),
        "parent_session_id": sessions.c.parent_session_id == bindparam("parent_session_id"),
        "session_id": sessions.c.session_id == bindparam("session_id"),
        "run_id": sessions.c.session_id.in_(select(runs.c.session_id).where(runs.c.run_id == bindparam("run_id"))),
        "owner": sessions.c.owner == bindparam("owner"),
        # Literals: the planner must see that the index of unfinished sessions holds all of them, in their order.
        **{
            str(status): and_(true(), sql("sessions.status IN $one", one=literals([status])))
            for status in SessionStatus
        },
    },
)


def list_runs(
    conn: Connection,
    caller: Caller,
    which: RunFilter,
    *,
    limit: int,
    after: str | None = None,
) -> RunPage | BadCursor:
    """Return a page of runs, newest first (PROTOCOL, Runs); BadCursor for a cursor from elsewhere."""
    wanted = {
        "statuses": known_statuses(which.statuses, RunStatus),
        "session_id": which.session_id,
        "runner_id": which.runner_id,
        "agent_name": which.agent_name,
        "labels": dict(which.labels) or None,
    }
    found = read_page(conn, caller, _RUNS, wanted, limit=limit, after=after)
    return found if isinstance(found, BadCursor) else RunPage(*found)


def list_sessions(
    conn: Connection,
    caller: Caller,
    which: SessionFilter,
    *,
    limit: int,
    after: str | None = None,
) -> SessionPage | BadCursor:
    """Return a page of sessions, newest first (PROTOCOL, Sessions); BadCursor for a cursor from elsewhere."""
    wanted: dict[str, Any] = {
        "statuses": known_statuses(which.statuses, SessionStatus),
        "parent_session_id": which.parent_session_id,
        "session_id": which.session_id,
        "run_id": which.run_id,
        "owner": which.owner,
    }
    if wanted["statuses"] is not None and len(wanted["statuses"]) == 1:
        (status,) = wanted.pop("statuses")
        wanted[status] = True
    found = read_page(conn, caller, _SESSIONS, wanted, limit=limit, after=after)
    return found if isinstance(found, BadCursor) else SessionPage(*found)


def known_statuses(statuses: Sequence[str], known: type[RunStatus | SessionStatus]) -> list[str] | None:
    return [status for status in statuses if status in set(known)] if statuses else None


def read_page(
    conn: Connection,
    caller: Caller,
    listed: Listed[Item],
    wanted: Mapping[str, Any],
    *,
    limit: int,
    after: str | None,
) -> tuple[list[Item], str | None, str] | BadCursor:
    """Read one page and the feed's head in one statement, so in one snapshot.

    Later changes of the rows have a higher position than the head, or none yet: a feed from there on may repeat some,
    but leaves none out.
    """
    values = {name: value for name, value in wanted.items() if value is not None}
    statement = page_statement(listed, frozenset(values), caller.role, is_next=after is not None)
    if after is not None:
        key = parse_key(after)
        if key is None:
            return BadCursor(after)
        values["after_moment"], values["after_row"] = key
    if caller.subject is not None:
        values["scope"] = caller.subject
    rows = conn.execute(statement, values | {"most": limit + 1, "bytes": PAGE_BYTES}).all()
    name = listed.row_id.key or ""
    feed_cursor = write_cursor(rows[0].epoch, rows[0].last_pos)
    found = [row for row in rows if getattr(row, name) is not None]
    shown = found[:limit]
    more = bool(shown) and shown[0].found > len(shown)
    next_cursor = write_key(getattr(shown[-1], listed.moment), getattr(shown[-1], name)) if more else None
    return [listed.kind(row) for row in shown], next_cursor, feed_cursor


@lru_cache(maxsize=256)
def page_statement(listed: Listed[Any], wanted: frozenset[str], role: Role, *, is_next: bool) -> Select[Any]:
    """Return the statement of such a page; cached, since building it takes longer than executing it."""
    table, row_id = listed.table, listed.row_id
    moment = table.c[listed.moment]
    size: ColumnElement[Any] = literal_column(str(ROW_BYTES))
    for column in listed.large:
        size += func.coalesce(func.pg_column_size(column), literal_column("0"))
    page = select(*listed.shown, size.label("size")).where(*(listed.conditions[name] for name in sorted(wanted)))
    limited = in_scope(role, table.c.owner, table.c.session_id)
    if limited is not None:
        page = page.where(limited)
    if is_next:
        page = page.where(tuple_(moment, row_id) < after_key(moment))
    page = page.order_by(moment.desc(), row_id.desc()).limit(bindparam("most", type_=BigInteger))
    found = page.subquery("found")
    in_order = (found.c[listed.moment].desc(), found.c[row_id.key or ""].desc())
    bytes_before = func.sum(found.c.size).over(order_by=in_order) - found.c.size
    sized = select(found, bytes_before.label("bytes_before"), func.count().over().label("found")).subquery("sized")
    # Unpack large values here, after the cut.
    inner = select(sized).where(sized.c.bytes_before < bindparam("bytes", type_=BigInteger)).subquery("page")
    return (
        select(*inner.c, feed_head.c.epoch, feed_head.c.last_pos)
        .select_from(feed_head.outerjoin(inner, true()))
        .order_by(inner.c[listed.moment].desc(), inner.c[row_id.key or ""].desc())
    )


def after_key(moment: ColumnElement[Any]) -> ColumnElement[Any]:
    return tuple_(bindparam("after_moment", type_=moment.type), bindparam("after_row", type_=Text))
