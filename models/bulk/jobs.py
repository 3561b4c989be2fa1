"""Bulks: actions on many runs that a dry run matched, carried out in chunks (models.bulk.chunks)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Row, text

from models.auth.audit import Act, audited_act, record_acts
from models.core.callers import Caller, Role
from models.core.errors import BadCursor, NotFound, TokenUnknown, TooManyBulks
from models.core.ids import new_id
from models.core.statuses import BulkAction
from models.runs.lists import parse_key, write_key
from models.schema.sql import sql

TOKEN_SECONDS: Final = 900
# Dry runs of a caller that wait for their start; an older one gives way to a new one.
MOST_PREPARED: Final = 20
MOST_RUNNING: Final = 20
MOST_ERRORS: Final = 100
BULK_PREFIX: Final = "blk_"
PREFIX_OF_DRY_RUN: Final = "blt_"


@dataclass(frozen=True, slots=True)
class NewBulk:
    """Dry run to keep: ``chunks`` of the ids of all runs that it matched.

    ``given`` is the client's filter and ``search`` the same as ``write_search`` makes it, both JSON text and None when
    the client named the runs; ``changes`` as those of ``Replay``, JSON text.
    """

    bulk_id: str
    caller: Caller
    action: BulkAction
    chunks: Sequence[Sequence[str]]
    given: str | None = None
    search: str | None = None
    changes: str | None = None


@dataclass(frozen=True, slots=True)
class StartBulk:
    caller: Caller
    token: str


@dataclass(frozen=True, slots=True)
class StopBulk:
    caller: Caller
    bulk_id: str


@dataclass(frozen=True, slots=True)
class Bulk:
    bulk_id: str
    action: str
    state: str
    total: int
    done: int
    changed: int
    skipped: Mapping[str, int]
    errors: Sequence[Mapping[str, str]]
    created_at: datetime
    ended_at: datetime | None
    created_by: str | None
    filter: str | None


@dataclass(frozen=True, slots=True)
class BulkPage:
    bulks: list[Bulk]
    next_cursor: str | None


BulkResult: TypeAlias = Bulk | NotFound
StartResult: TypeAlias = Bulk | TokenUnknown | TooManyBulks

_SHOWN: Final = """bulk_id, action, state, total, done, changed, skipped, CAST(errors AS text) AS errors, created_at,
    ended_at, created_by, CAST(filter AS text) AS filter"""

_PREPARE = sql("""
    INSERT INTO bulk_jobs (bulk_id, caller, role, owner, created_by, action, state, filter, search, changes, total,
        expires_at)
    VALUES (:bulk_id, :caller, :role, :owner, :created_by, :action, $BULK_PREPARED, CAST(:given AS json),
        CAST(:search AS json), CAST(:changes AS json), :total, now() + make_interval(secs => :seconds))
    ON CONFLICT (bulk_id) DO NOTHING
    RETURNING bulk_id
""")

_EXPIRES = text("SELECT expires_at FROM bulk_jobs WHERE bulk_id = :bulk_id")

_ADD_CHUNKS = text("""
    INSERT INTO bulk_chunks (bulk_id, run_ids)
    SELECT :bulk_id, array_agg(m.run_id ORDER BY m.place)
    FROM unnest(CAST(:run_ids AS text[]), CAST(:chunks AS integer[])) WITH ORDINALITY AS m(run_id, chunk, place)
    GROUP BY m.chunk ORDER BY m.chunk
""")

# A dry run that is being started elsewhere is locked and skipped.
_GIVE_WAY = sql("""
    WITH old AS MATERIALIZED (
        SELECT j.bulk_id FROM bulk_jobs j
        WHERE j.bulk_id IN (SELECT o.bulk_id FROM bulk_jobs o WHERE o.caller = :caller AND o.state = $BULK_PREPARED
                            ORDER BY o.prepared_at DESC OFFSET :most)
          AND j.state = $BULK_PREPARED
        FOR UPDATE SKIP LOCKED
    ), chunks AS (
        DELETE FROM bulk_chunks c USING old WHERE c.bulk_id = old.bulk_id
    )
    DELETE FROM bulk_jobs j USING old WHERE j.bulk_id = old.bulk_id
""")

_LOCK = sql(
    """
    SELECT $shown, caller, owner, expires_at > now() AS is_valid FROM bulk_jobs WHERE bulk_id = :bulk_id FOR UPDATE
    """,
    shown=_SHOWN,
)

_RUNNING = sql("SELECT count(*) FROM bulk_jobs WHERE state = $BULK_RUNNING AND caller = :caller")

# One without a run has nothing to do.
_START = sql(
    """
    UPDATE bulk_jobs
    SET state = CASE WHEN total > 0 THEN $BULK_RUNNING ELSE $BULK_COMPLETED END, created_at = now(), due_at = now(),
        created_by = :created_by, ended_at = CASE WHEN total = 0 THEN now() END
    WHERE bulk_id = :bulk_id
    RETURNING $shown
    """,
    shown=_SHOWN,
)

_STOP = sql(
    """
    UPDATE bulk_jobs SET state = $BULK_STOPPED, ended_at = now() WHERE bulk_id = :bulk_id AND state = $BULK_RUNNING
    RETURNING $shown
    """,
    shown=_SHOWN,
)

_DROP_CHUNKS = text("DELETE FROM bulk_chunks WHERE bulk_id = :bulk_id")

_GET = sql("SELECT $shown, caller FROM bulk_jobs WHERE bulk_id = :bulk_id AND created_at IS NOT NULL", shown=_SHOWN)

_PAGE: Final = {
    (is_limited, is_next): sql(
        """
        SELECT $shown FROM bulk_jobs WHERE created_at IS NOT NULL $limited $next
        ORDER BY created_at DESC, bulk_id DESC LIMIT :most
        """,
        shown=_SHOWN,
        limited="AND caller = :caller" if is_limited else "",
        next="AND (created_at, bulk_id) < (:after_moment, :after_row)" if is_next else "",
    )
    for is_limited in (False, True)
    for is_next in (False, True)
}


def caller_name(caller: Caller) -> str:
    """Return the name under which a caller has bulks: its role and owner; of an admin without owner its credential.

    "" while authentication is off.
    """
    return f"{caller.role}:{caller.owner}" if caller.owner is not None else (caller.by or "")


def new_bulk_id() -> str:
    return new_id(BULK_PREFIX)


def token_of(bulk_id: str) -> str:
    """Return the token of a dry run: no secret, since only its caller can use it."""
    return PREFIX_OF_DRY_RUN + bulk_id.removeprefix(BULK_PREFIX)


def prepare_bulks(conn: Connection, items: Sequence[NewBulk]) -> list[datetime]:
    """Keep dry runs for 15 minutes; return until when. Safe to repeat. Of a caller's the newest 20 are kept."""
    return [_prepare(conn, item) for item in items]


def _prepare(conn: Connection, item: NewBulk) -> datetime:
    caller = item.caller
    values = {
        "bulk_id": item.bulk_id,
        "caller": caller_name(caller),
        "role": caller.role.value,
        "owner": caller.owner,
        "created_by": caller.by,
        "action": item.action.value,
        "given": item.given,
        "search": item.search,
        "changes": item.changes,
        "total": sum(map(len, item.chunks)),
        "seconds": TOKEN_SECONDS,
    }
    if conn.execute(_PREPARE, values).first() is not None:
        places = [(run_id, place) for place, chunk in enumerate(item.chunks) for run_id in chunk]
        run_ids, chunks = [run_id for run_id, _ in places], [place for _, place in places]
        conn.execute(_ADD_CHUNKS, {"bulk_id": item.bulk_id, "run_ids": run_ids, "chunks": chunks})
        conn.execute(_GIVE_WAY, {"caller": caller_name(caller), "most": MOST_PREPARED})
    expires_at: datetime = conn.execute(_EXPIRES, {"bulk_id": item.bulk_id}).scalar_one()
    return expires_at


def start_bulks(conn: Connection, items: Sequence[StartBulk]) -> list[StartResult]:
    """Start the dry run of each token; a repeat returns the same bulk. An admin's is audited.

    TokenUnknown for an expired token and for one of another caller; TooManyBulks while 20 of the caller run.
    """
    started = {item: _start(conn, item) for item in sorted(items, key=lambda item: item.token)}
    return [started[item] for item in items]


def _start(conn: Connection, item: StartBulk) -> StartResult:
    name = caller_name(item.caller)
    bulk_id = BULK_PREFIX + item.token.removeprefix(PREFIX_OF_DRY_RUN)
    row = conn.execute(_LOCK, {"bulk_id": bulk_id}).first() if item.token.startswith(PREFIX_OF_DRY_RUN) else None
    if row is None or row.caller != name:
        return TokenUnknown()
    if row.created_at is not None:
        return _bulk(row)
    if not row.is_valid:
        return TokenUnknown()
    if conn.execute(_RUNNING, {"caller": name}).scalar_one() >= MOST_RUNNING:
        return TooManyBulks(MOST_RUNNING)
    started = conn.execute(_START, {"bulk_id": bulk_id, "created_by": item.caller.by}).one()
    record_acts(conn, audited_act(item.caller, Act.BULK_STARTED, bulk_id, None))
    return _bulk(started)


def stop_bulks(conn: Connection, items: Sequence[StopBulk]) -> list[BulkResult]:
    """Stop each bulk once the chunk in progress is done: its lock is waited for. Safe to repeat.

    An admin's stop of another caller's bulk is audited.
    """
    stopped = {item: _stop(conn, item) for item in sorted(items, key=lambda item: item.bulk_id)}
    return [stopped[item] for item in items]


def _stop(conn: Connection, item: StopBulk) -> BulkResult:
    row = conn.execute(_LOCK, {"bulk_id": item.bulk_id}).first()
    if row is None or row.created_at is None or not _may_see(item.caller, row.caller):
        return NotFound("bulk", item.bulk_id)
    stopped = conn.execute(_STOP, {"bulk_id": item.bulk_id}).first()
    if stopped is None:
        return _bulk(row)
    conn.execute(_DROP_CHUNKS, {"bulk_id": item.bulk_id})
    if row.caller != caller_name(item.caller):
        record_acts(conn, audited_act(item.caller, Act.BULK_STOPPED, item.bulk_id, row.owner))
    return _bulk(stopped)


def get_bulk(conn: Connection, caller: Caller, bulk_id: str) -> BulkResult:
    """Return a bulk that was started; NotFound for another caller's, unless an admin asks."""
    row = conn.execute(_GET, {"bulk_id": bulk_id}).first()
    if row is None or not _may_see(caller, row.caller):
        return NotFound("bulk", bulk_id)
    return _bulk(row)


def list_bulks(conn: Connection, caller: Caller, *, limit: int, after: str | None = None) -> BulkPage | BadCursor:
    """Return a page of bulks, newest first: the caller's own, for an admin all of them."""
    key = None if after is None else parse_key(after)
    if after is not None and key is None:
        return BadCursor(after)
    values: dict[str, Any] = {"most": limit + 1}
    is_limited = caller.role is not Role.ADMIN
    if is_limited:
        values["caller"] = caller_name(caller)
    if key is not None:
        values["after_moment"], values["after_row"] = key
    rows = conn.execute(_PAGE[is_limited, key is not None], values).all()
    shown = [_bulk(row) for row in rows[:limit]]
    more = len(rows) > limit
    return BulkPage(shown, write_key(shown[-1].created_at, shown[-1].bulk_id) if more else None)


def _may_see(caller: Caller, name: str) -> bool:
    return caller.role is Role.ADMIN or caller_name(caller) == name


def _bulk(row: Row[Any]) -> Bulk:
    return Bulk(
        row.bulk_id,
        row.action,
        row.state,
        row.total,
        row.done,
        row.changed,
        row.skipped,
        json.loads(row.errors),
        row.created_at,
        row.ended_at,
        row.created_by,
        row.filter,
    )
