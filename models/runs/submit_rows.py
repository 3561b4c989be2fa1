"""Statements of a submission, one function each, in the order in which they lock."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from models.core.ids import uuid7
from models.runs.submission import NewRun, Plan
from models.schema.columns import array_rows
from models.schema.sql import sql
from models.schema.tables import runs, sessions
from models.state.sessions import SESSION_COLUMNS_OF_S, Session, as_session

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class StoredKey:
    """Answer that is stored with an idempotency key."""

    body_hash: str
    run_id: str
    session_id: str


# Wait here for the transaction that has the key; only a second statement sees its row.
_TAKE_KEYS = text("""
    INSERT INTO idempotency_keys (caller, key, body_hash, run_id, session_id)
    SELECT * FROM unnest(CAST(:callers AS text[]), CAST(:keys AS text[]), CAST(:hashes AS text[]),
                         CAST(:run_ids AS text[]), CAST(:sessions AS text[]))
        AS k(caller, key, hash, run_id, session_id)
    ORDER BY k.caller, k.key
    ON CONFLICT (caller, key) DO NOTHING
    RETURNING caller, key
""")

_READ_KEYS = text("""
    SELECT k.caller, k.key, k.body_hash, k.run_id, k.session_id
    FROM unnest(CAST(:callers AS text[]), CAST(:keys AS text[])) AS wanted(caller, key)
    JOIN idempotency_keys k USING (caller, key)
""")

_DROP_KEYS = text("""
    DELETE FROM idempotency_keys k
    USING unnest(CAST(:callers AS text[]), CAST(:keys AS text[])) AS d(caller, key)
    WHERE k.caller = d.caller AND k.key = d.key
""")

# Hide by first_event_id the remains of a former session of the same id: its events all have smaller ids.
_BEGIN = sql(
    """
    INSERT INTO sessions AS s ($columns, status, first_event_id, next_run)
    SELECT $values, $PENDING, e.next_id, 2
    FROM unnest($arrays) AS n($columns)
    CROSS JOIN (SELECT last_value + CASE WHEN is_called THEN 1 ELSE 0 END AS next_id FROM events_id_seq) e
    ORDER BY n.session_id
    ON CONFLICT (session_id) DO NOTHING
    RETURNING $session
    """,
    session=SESSION_COLUMNS_OF_S,
    **array_rows("n", sessions, ["session_id", "incarnation", "owner", "project_dir", "agent_name", "scope"]),
)

_KNOWN = text("SELECT run_id FROM runs WHERE run_id = ANY(CAST(:run_ids AS text[]))")

_DROP_SESSIONS = text("DELETE FROM sessions WHERE session_id = ANY(CAST(:sessions AS text[]))")

_GIVEN = (
    "run_id",
    "session_id",
    "session_seq",
    "owner",
    "type",
    "agent_name",
    "parameters",
    "project_dir",
    "parent_session_id",
    "execution_mode",
    "scope",
    "demands",
    "labels",
    "profile_id",
    "priority",
    "max_attempts",
    "run_timeout_seconds",
    "no_match_timeout_seconds",
)
# Make a start ready unless it is delayed; readiness of a resume is left to update_session_status.
_INSERT_RUNS = sql(
    """
    INSERT INTO runs ($columns, not_before, ready, match_deadline_at)
    SELECT $values, due.at, n.starts AND (due.at IS NULL OR due.at <= now()),
        CASE WHEN n.starts AND (due.at IS NULL OR due.at <= now())
             THEN now() + make_interval(secs => n.no_match_timeout_seconds) END
    FROM unnest($arrays, CAST(:not_before AS timestamptz[]), CAST(:delay AS double precision[]),
                CAST(:starts AS boolean[]))
        AS n($columns, not_before, delay, starts)
    CROSS JOIN LATERAL (SELECT coalesce(n.not_before, now() + make_interval(secs => n.delay)) AS at) due
    ORDER BY n.run_id
    ON CONFLICT (run_id) DO NOTHING
    RETURNING run_id
    """,
    **array_rows("n", runs, _GIVEN),
)

# Write what a start inherits from its parent, and what a resume changes.
_FILL = sql(
    """
    UPDATE sessions s
    SET next_run = s.next_run + CASE WHEN f.starts THEN 0 ELSE 1 END, scope = coalesce(CAST(f.scope AS json), s.scope),
        owner = f.owner, depth = f.depth,
        parent_session_id = CASE WHEN f.starts THEN f.parent_session_id ELSE s.parent_session_id END
    FROM unnest(CAST(:sessions AS text[]), CAST(:scopes AS text[]), CAST(:owners AS text[]),
                CAST(:depths AS integer[]), CAST(:parents AS text[]), CAST(:starts AS boolean[]))
        AS f(session_id, scope, owner, depth, parent_session_id, starts)
    WHERE s.session_id = f.session_id AND s.session_id = ANY(CAST(:sessions AS text[]))
    RETURNING $session
    """,
    session=SESSION_COLUMNS_OF_S,
)


def _keys(keys: Collection[Key]) -> dict[str, list[str]]:
    return {"callers": [caller for caller, _ in keys], "keys": [key for _, key in keys]}


def take_keys(conn: Connection, items: Sequence[NewRun]) -> set[Key]:
    """Insert the items' keys; return those that are new."""
    parameters = _keys([item.key for item in items if item.key is not None])
    rows = conn.execute(
        _TAKE_KEYS,
        {
            **parameters,
            "hashes": [item.body_hash or "" for item in items],
            "run_ids": [item.run_id for item in items],
            "sessions": [item.own_session for item in items],
        },
    )
    return {(row.caller, row.key) for row in rows}


def read_keys(conn: Connection, keys: Collection[Key]) -> dict[Key, StoredKey]:
    if not keys:
        return {}
    rows = conn.execute(_READ_KEYS, _keys(keys))
    return {(row.caller, row.key): StoredKey(row.body_hash, row.run_id, row.session_id) for row in rows}


def drop_keys(conn: Connection, keys: Collection[Key]) -> None:
    if keys:
        conn.execute(_DROP_KEYS, _keys(keys))


def begin_sessions(conn: Connection, starts: Sequence[NewRun]) -> dict[str, Session]:
    """Insert the sessions to be started, without parents; return those whose ids were free."""
    if not starts:
        return {}
    rows = conn.execute(
        _BEGIN,
        {
            "session_id": [item.own_session for item in starts],
            "incarnation": [uuid7() for _ in starts],
            "owner": [item.caller.owner for item in starts],
            "project_dir": [item.project_dir for item in starts],
            "agent_name": [item.agent_name for item in starts],
            "scope": [item.scope for item in starts],
        },
    )
    return {row.session_id: as_session(row) for row in rows}


def known_runs(conn: Connection, run_ids: Collection[str]) -> set[str]:
    """Return the runs that exist: a batch that is executed again finds its own."""
    if not run_ids:
        return set()
    return set(conn.execute(_KNOWN, {"run_ids": sorted(run_ids)}).scalars())


def drop_sessions(conn: Connection, session_ids: Collection[str]) -> None:
    """Delete the bare rows of starts that failed."""
    if session_ids:
        conn.execute(_DROP_SESSIONS, {"sessions": sorted(session_ids)})


def insert_runs(conn: Connection, plans: Sequence[Plan], profile_ids: Sequence[int]) -> set[str]:
    items = [plan.item for plan in plans]
    rows = conn.execute(
        _INSERT_RUNS,
        {
            "run_id": [item.run_id for item in items],
            "session_id": [item.own_session for item in items],
            "session_seq": [plan.session_seq for plan in plans],
            "owner": [plan.owner for plan in plans],
            "type": [item.type.value for item in items],
            "agent_name": [plan.agent_name for plan in plans],
            "parameters": [item.parameters for item in items],
            "project_dir": [plan.project_dir for plan in plans],
            "parent_session_id": [item.parent_session_id for item in items],
            "execution_mode": [str(item.execution_mode) for item in items],
            "scope": [plan.scope for plan in plans],
            "demands": [plan.demands.as_json() for plan in plans],
            "labels": [json.dumps(item.labels) if item.labels else None for item in items],
            "profile_id": list(profile_ids),
            "priority": [item.priority for item in items],
            "max_attempts": [item.max_attempts for item in items],
            "run_timeout_seconds": [item.run_timeout_seconds for item in items],
            "no_match_timeout_seconds": [item.no_match_timeout_seconds for item in items],
            "not_before": [item.not_before for item in items],
            "delay": [item.delay_seconds for item in items],
            "starts": [item.type.value == "start_session" for item in items],
        },
    )
    return set(rows.scalars())


def fill_sessions(conn: Connection, plans: Sequence[Plan]) -> Mapping[str, Session]:
    """Update the sessions of resumes and of starts with a parent; return them as they are now."""
    if not plans:
        return {}
    rows = conn.execute(
        _FILL,
        {
            "sessions": [plan.item.own_session for plan in plans],
            "scopes": [plan.scope for plan in plans],
            "owners": [plan.owner for plan in plans],
            "depths": [plan.depth for plan in plans],
            "parents": [plan.item.parent_session_id for plan in plans],
            "starts": [plan.item.type.value == "start_session" for plan in plans],
        },
    )
    return {row.session_id: as_session(row) for row in rows}
