"""Sessions of the console: credentials in a cookie, for a caller that showed a key or a token once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Row, text

from models.core.callers import Caller, Role
from models.core.errors import NotFound
from models.schema.caller_tables import console_sessions
from models.schema.columns import array_rows
from models.schema.sql import sql


@dataclass(frozen=True, slots=True)
class NewConsoleSession:
    """Session to store: its caller, and after how many seconds it ends.

    ``key_id``: the key that was shown; ``sign_in_hash``: the sign-in by OIDC, which opens no other session.
    """

    session_hash: str
    caller: Caller
    seconds: float
    key_id: str | None = None
    sign_in_hash: str | None = None


@dataclass(frozen=True, slots=True)
class ConsoleSession:
    caller: Caller
    key_id: str | None
    lives_for: float


FindResult: TypeAlias = ConsoleSession | NotFound
OpenResult: TypeAlias = bool | NotFound

# Remember a sign-in for longer than its session may last.
SIGN_IN_SECONDS: Final = 24 * 3600.0

_ADD = sql(
    """
    INSERT INTO console_sessions ($columns, expires_at)
    SELECT $values, now() + make_interval(secs => t.seconds)
    FROM unnest($arrays, CAST(:seconds AS double precision[])) AS t($columns, seconds)
    ORDER BY t.session_hash
    ON CONFLICT (session_hash) DO NOTHING
    """,
    **array_rows("t", console_sessions, ["session_hash", "role", "owner", "key_id"]),
)

# Of two processes that use a sign-in at once, the second waits here for the first.
_USE_SIGN_INS = text("""
    INSERT INTO console_sign_ins (sign_in_hash, session_hash, expires_at)
    SELECT DISTINCT ON (t.sign_in_hash) t.sign_in_hash, t.session_hash, now() + make_interval(secs => :seconds)
    FROM unnest(CAST(:sign_ins AS text[]), CAST(:hashes AS text[])) AS t(sign_in_hash, session_hash)
    ORDER BY t.sign_in_hash, t.session_hash
    ON CONFLICT (sign_in_hash) DO NOTHING
""")

# A statement of its own: the one above does not see the row that it waited for.
_USED_BY = text("""
    SELECT sign_in_hash, session_hash FROM console_sign_ins WHERE sign_in_hash = ANY(CAST(:sign_ins AS text[]))
""")

_SWEEP_SIGN_INS = text("""
    DELETE FROM console_sign_ins s
    USING (SELECT sign_in_hash FROM console_sign_ins WHERE expires_at < now()
           ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED) old
    WHERE s.sign_in_hash = old.sign_in_hash
""")

# A session that is being deleted elsewhere is locked and skipped.
_SWEEP = text("""
    DELETE FROM console_sessions s
    USING (SELECT session_hash FROM console_sessions WHERE expires_at < now() - interval '1 minute'
           ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED) old
    WHERE s.session_hash = old.session_hash
""")

_FIND = text("""
    SELECT session_hash, role, owner, key_id,
        CAST(extract(epoch FROM expires_at - clock_timestamp()) AS float) AS lives_for
    FROM console_sessions WHERE session_hash = ANY(CAST(:hashes AS text[])) AND expires_at > clock_timestamp()
""")

_DELETE = text("""
    WITH shown AS MATERIALIZED (
        SELECT session_hash FROM console_sessions WHERE session_hash = ANY(CAST(:hashes AS text[]))
        ORDER BY session_hash FOR UPDATE
    )
    DELETE FROM console_sessions s USING shown WHERE s.session_hash = shown.session_hash
""")


def open_console_sessions(conn: Connection, items: Sequence[NewConsoleSession]) -> list[OpenResult]:
    """Store sessions and delete up to 1,000 that expired more than a minute ago. Safe to repeat.

    NotFound for a sign-in that has opened another session before.
    """
    conn.execute(_SWEEP)
    used = _used_elsewhere(conn, [item for item in items if item.sign_in_hash is not None])
    _add(conn, [item for item in items if item.session_hash not in used])
    return [NotFound("sign-in", "") if item.session_hash in used else True for item in items]


def _used_elsewhere(conn: Connection, items: Sequence[NewConsoleSession]) -> set[str]:
    """Return the sessions of these whose sign-in opened another one."""
    if not items:
        return set()
    conn.execute(_SWEEP_SIGN_INS)
    sign_ins = [item.sign_in_hash for item in items]
    hashes = [item.session_hash for item in items]
    conn.execute(_USE_SIGN_INS, {"sign_ins": sign_ins, "hashes": hashes, "seconds": SIGN_IN_SECONDS})
    used_by = {row.sign_in_hash: row.session_hash for row in conn.execute(_USED_BY, {"sign_ins": sign_ins})}
    return {item.session_hash for item in items if used_by.get(item.sign_in_hash) != item.session_hash}


def _add(conn: Connection, items: Sequence[NewConsoleSession]) -> None:
    conn.execute(
        _ADD,
        {
            "session_hash": [item.session_hash for item in items],
            "role": [item.caller.role.value for item in items],
            "owner": [item.caller.owner for item in items],
            "key_id": [item.key_id for item in items],
            "seconds": [item.seconds for item in items],
        },
    )


def find_console_sessions(conn: Connection, hashes: Sequence[str]) -> list[FindResult]:
    """Return the sessions. NotFound for one that expired, was closed or never existed."""
    found = {row.session_hash: row for row in conn.execute(_FIND, {"hashes": sorted(set(hashes))})}
    return [
        _session(row) if (row := found.get(each)) is not None else NotFound("console session", "") for each in hashes
    ]


def close_console_sessions(conn: Connection, hashes: Sequence[str]) -> list[bool]:
    """Delete the sessions, where they exist. Safe to repeat; every process knows within 5 s."""
    conn.execute(_DELETE, {"hashes": sorted(set(hashes))})
    return [True for _ in hashes]


def _session(row: Row[Any]) -> ConsoleSession:
    by = f"key:{row.key_id}" if row.key_id is not None else f"subject:{row.owner}"
    return ConsoleSession(Caller(Role(row.role), row.owner, by), row.key_id, row.lives_for)
