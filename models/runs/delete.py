from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from sqlalchemy import Connection, text

from models.auth.audit import Act, AuditedAct, audited_act, record_acts
from models.core.callers import Caller
from models.core.errors import NotFound, StopSessionFirst
from models.core.ids import uuid7
from models.core.statuses import IN_HAND, SessionStatus
from models.runs.stop import cancelled
from models.schema.sql import sql
from models.state.events_outbox import EventRow, encode, record_events, session_updated
from models.state.locks import LockedRows, lock_runs, try_lock_more
from models.state.pending_events import pending_events_of
from models.state.sessions import read_sessions
from models.state.transitions import move_runs
from models.state.visibility import find_visible

_ALIVE = frozenset({SessionStatus.RUNNING, SessionStatus.IDLE, SessionStatus.STOPPING})


@dataclass(frozen=True, slots=True)
class DeleteSession:
    """Request to delete a session; ``request_id`` makes a repeat of the same request give the same answer.

    ``ended_only``: refuse it with a pending run, too, instead of stopping that.
    """

    caller: Caller
    session_id: str
    request_id: str = field(default_factory=uuid7)
    ended_only: bool = False


@dataclass(frozen=True, slots=True)
class Deleted:
    session_id: str
    events_count: int
    runs_count: int


DeleteResult: TypeAlias = Deleted | NotFound | StopSessionFirst

_DONE = text("""
    SELECT request_id, session_id, events_count, runs_count FROM deleted_sessions
    WHERE request_id = ANY(CAST(:requests AS text[]))
""")

_ITS_RUNS = text("SELECT run_id FROM runs WHERE session_id = ANY(CAST(:sessions AS text[]))")

_ITS_CHILDREN = text("SELECT session_id FROM sessions WHERE parent_session_id = ANY(CAST(:sessions AS text[]))")

_COUNT = sql(
    """
    SELECT s.session_id,
        (SELECT count(*) FROM events e
         WHERE e.session_id = s.session_id AND e.id >= s.first_event_id AND e.kind = 'event')
        + (SELECT count(*) FROM ($pending) e WHERE e.id >= s.first_event_id AND e.kind = 'event') AS events_count,
        (SELECT count(*) FROM runs r WHERE r.session_id = s.session_id) AS runs_count
    FROM sessions s WHERE s.session_id = ANY(CAST(:sessions AS text[]))
    """,
    pending=pending_events_of("s.session_id"),
)

_ORPHAN = text("""
    UPDATE sessions SET parent_session_id = NULL WHERE parent_session_id = ANY(CAST(:sessions AS text[]))
""")

# Store the id of the delete's own event: higher ones belong to a later session of the same id.
_REMEMBER = text("""
    INSERT INTO deleted_sessions (request_id, session_id, below_event_id, events_count, runs_count)
    SELECT d.request_id, d.session_id, e.id, d.events_count, d.runs_count
    FROM unnest(CAST(:requests AS text[]), CAST(:sessions AS text[]), CAST(:events AS bigint[]),
                CAST(:runs AS bigint[])) AS d(request_id, session_id, events_count, runs_count)
    JOIN events e ON e.event_uid = d.request_id
""")

_FORGET = (
    text("DELETE FROM child_results WHERE parent_session_id = ANY(CAST(:sessions AS text[]))"),
    text("DELETE FROM stop_commands WHERE session_id = ANY(CAST(:sessions AS text[]))"),
    text("""
        DELETE FROM run_blueprints WHERE run_id = ANY(ARRAY(
            SELECT run_id FROM runs WHERE session_id = ANY(CAST(:sessions AS text[]))))
    """),
    text("DELETE FROM runs WHERE session_id = ANY(CAST(:sessions AS text[]))"),
    text("DELETE FROM sessions WHERE session_id = ANY(CAST(:sessions AS text[]))"),
)

# Delete only numbered events: a position that was never given would be an unexplained hole in the feed.
_PURGE = text("""
    WITH doomed AS MATERIALIZED (
        SELECT e.id FROM deleted_sessions d
        CROSS JOIN LATERAL (
            SELECT id FROM events
            WHERE session_id = d.session_id AND id < d.below_event_id
              AND feed_pos IS NOT NULL AND kind <> 'session_deleted'
            ORDER BY feed_pos LIMIT :most
        ) e
        LIMIT :most
    )
    DELETE FROM events USING doomed WHERE events.id = doomed.id
""")

_PURGE_RESULTS = text("""
    DELETE FROM kept_results k USING deleted_sessions d
    WHERE k.session_id = d.session_id AND k.event_id < d.below_event_id
""")

# Keep the row for a minute after its work: it also answers a repeat of the request, and retention may have kept a
# result in the moment of the delete.
_PURGED = sql(
    """
    DELETE FROM deleted_sessions d
    USING (SELECT request_id FROM deleted_sessions o
           WHERE o.deleted_at < now() - interval '1 minute' AND NOT EXISTS (
               SELECT 1 FROM events e
               WHERE e.session_id = o.session_id AND e.id < o.below_event_id AND e.kind <> 'session_deleted')
             AND NOT EXISTS (SELECT 1 FROM ($pending) e WHERE e.id < o.below_event_id)
           ORDER BY o.request_id LIMIT :most FOR UPDATE OF o SKIP LOCKED) done
    WHERE d.request_id = done.request_id
    """,
    pending=pending_events_of("o.session_id"),
)


def delete_sessions(conn: Connection, items: Sequence[DeleteSession]) -> list[DeleteResult]:
    """Remove each session with its runs and write ``session_deleted``; its children become roots.

    Pending runs are stopped first, so that the feed and a parent are told of their end. StopSessionFirst while
    something of the session is alive. Its events are deleted later (``purge_deleted``). An admin's delete of another
    owner's session is audited (models.auth.audit).
    """
    results: list[DeleteResult] = [NotFound("session", item.session_id) for item in items]
    rows = conn.execute(_DONE, {"requests": [item.request_id for item in items]})
    done = {row.request_id: Deleted(row.session_id, row.events_count, row.runs_count) for row in rows}
    locked = _lock_with_children(conn, {item.session_id for item in items if item.request_id not in done})
    shown = find_visible(conn, [(item.caller, item.session_id) for item in items])
    chosen: dict[str, int] = {}
    for ordinal, item in enumerate(items):
        if item.request_id in done:
            results[ordinal] = done[item.request_id]
        elif item.session_id in chosen or not locked.shows(item.session_id, item.caller, shown):
            continue
        elif is_alive(locked, item.session_id) or (item.ended_only and locked.unfinished_of(item.session_id)):
            results[ordinal] = StopSessionFirst(item.session_id)
        else:
            chosen[item.session_id] = ordinal
    if chosen:
        requests = {session_id: items[ordinal] for session_id, ordinal in chosen.items()}
        record_acts(conn, _acts(locked, requests))
        removed = remove_sessions(conn, locked, requests)
        _remember(conn, requests, removed)
        for session_id, ordinal in chosen.items():
            results[ordinal] = removed[session_id]
    return results


def _acts(locked: LockedRows, requests: dict[str, DeleteSession]) -> list[AuditedAct]:
    return [
        act
        for session_id, item in requests.items()
        for act in audited_act(item.caller, Act.SESSION_DELETED, session_id, locked.sessions[session_id].owner)
    ]


def is_alive(locked: LockedRows, session_id: str) -> bool:
    session = locked.sessions[session_id]
    if session.status in _ALIVE or session.runner_id is not None:
        return True
    return any(run.status in IN_HAND for run in locked.unfinished_of(session_id))


def purge_deleted(conn: Connection, limit: int = 1000) -> int:
    """Remove up to ``limit`` numbered events of deleted sessions, and up to ``limit`` records of deletes without events
    left.

    Return the larger of both numbers: there may be more when it is ``limit``.
    """
    conn.execute(_PURGE_RESULTS)
    removed = conn.execute(_PURGE, {"most": limit}).rowcount
    return removed if removed >= limit else max(removed, conn.execute(_PURGED, {"most": limit}).rowcount)


def _lock_with_children(conn: Connection, session_ids: Collection[str]) -> LockedRows:
    wanted = {"sessions": sorted(session_ids)}
    run_ids = conn.execute(_ITS_RUNS, wanted).scalars().all()
    children = conn.execute(_ITS_CHILDREN, wanted).scalars().all()
    locked = lock_runs(conn, run_ids, session_ids, more_sessions=children)
    newer_runs = set(conn.execute(_ITS_RUNS, wanted).scalars()) - locked.runs.keys()
    newer_children = set(conn.execute(_ITS_CHILDREN, wanted).scalars()) - locked.sessions.keys()
    return try_lock_more(conn, locked, newer_runs, newer_children)


def remove_sessions(conn: Connection, locked: LockedRows, chosen: dict[str, DeleteSession]) -> dict[str, Deleted]:
    """Remove sessions that are locked with all their runs and children; return what was removed, by session.

    Writes ``session_deleted``, and ``session_updated`` of the children, which become roots.
    """
    wanted = {"sessions": sorted(chosen)}
    move_runs(conn, [cancelled(run) for session_id in chosen for run in locked.unfinished_of(session_id)])
    removed = {deleted.session_id: deleted for deleted in (Deleted(*row) for row in conn.execute(_COUNT, wanted))}
    children = [child for child in conn.execute(_ITS_CHILDREN, wanted).scalars() if child not in chosen]
    conn.execute(_ORPHAN, wanted)
    gone = [_session_deleted(locked, item, removed[session_id].runs_count) for session_id, item in chosen.items()]
    orphans = read_sessions(conn, sorted(children))
    # With ids as other changes of metadata have, by which webhooks tell them from ends.
    changed = [replace(session_updated(orphan), event_uid=uuid7()) for orphan in orphans.values()]
    record_events(conn, [*changed, *gone])
    for statement in _FORGET:
        conn.execute(statement, wanted)
    return removed


def _remember(conn: Connection, chosen: dict[str, DeleteSession], removed: dict[str, Deleted]) -> None:
    conn.execute(
        _REMEMBER,
        {
            "requests": [item.request_id for item in chosen.values()],
            "sessions": list(chosen),
            "events": [removed[session_id].events_count for session_id in chosen],
            "runs": [removed[session_id].runs_count for session_id in chosen],
        },
    )


def _session_deleted(locked: LockedRows, item: DeleteSession, runs_count: int) -> EventRow:
    frame = encode({"session_id": item.session_id, "runs_deleted": runs_count})
    owner = locked.sessions[item.session_id].owner
    return EventRow("session_deleted", item.session_id, frame, owner, event_uid=item.request_id)
