from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from models.core.callers import ADMIN
from models.runs.delete import DeleteSession, remove_sessions
from models.schema.sql import sql
from models.state.locks import LockedRows
from models.state.pending_events import pending_events_of
from models.state.try_locks import try_lock_runs

MOST_EVENTS: Final = 1000
# Bound the stored bytes of frames that one transaction removes, or keeps as results, however large events are.
MOST_BYTES: Final = 32 << 20
MOST_SESSIONS: Final = 200
_DAY: Final = 86_400.0

_OLDEST = text("""
    SELECT id, feed_pos, created_at < now() - make_interval(secs => :age) AS old, pg_column_size(frame) AS size
    FROM events WHERE feed_pos > (SELECT floor FROM feed_head)
    ORDER BY feed_pos LIMIT :most
""")

_LOCK_EVENTS = text(
    "SELECT id FROM events WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY feed_pos FOR UPDATE SKIP LOCKED"
)

# Keep an event only if the session has no newer result: a newer one is kept when its time comes. The run that wrote it
# goes into the frame, and not into a column that the former version would leave as it is when it replaces the frame. As
# text: Postgres refuses to take apart a frame that holds a NUL.
_KEEP_RESULTS = text("""
    INSERT INTO kept_results AS kept (session_id, event_id, frame)
    SELECT e.session_id, e.id, CAST(
        '{"run_id":' || coalesce(CAST(to_json(e.run_id) AS text), 'null') || ','
        || substr(CAST(e.frame AS text), 2) AS json)
    FROM events e JOIN sessions s ON s.session_id = e.session_id AND e.id >= s.first_event_id
    WHERE e.id = ANY(CAST(:ids AS bigint[])) AND e.event_type = 'result' AND e.kind = 'event'
      AND NOT EXISTS (SELECT 1 FROM events newer
                      WHERE newer.session_id = e.session_id AND newer.id > e.id
                        AND newer.event_type = 'result' AND newer.kind = 'event')
    ORDER BY e.session_id
    ON CONFLICT (session_id) DO UPDATE SET event_id = excluded.event_id, frame = excluded.frame
    WHERE kept.event_id < excluded.event_id
""")

_DROP = text("DELETE FROM events WHERE id = ANY(CAST(:ids AS bigint[]))")

# Lock the head last: numbering waits from here to the commit.
_RAISE_FLOOR = text("UPDATE feed_head SET floor = greatest(floor, :upto)")

_WALK = text("""
    SELECT session_id, created_at FROM sessions
    WHERE (created_at, session_id)
          > (coalesce(CAST(:created_at AS timestamptz), '-infinity'), CAST(:session_id AS text))
      AND created_at < now() - make_interval(secs => :age)
    ORDER BY created_at, session_id LIMIT :most
""")

# Keep a parent as long as a child is under way, which reports its end to it.
_OVER = sql(
    """
    SELECT s.session_id FROM sessions s
    WHERE s.session_id = ANY(CAST(:sessions AS text[]))
      AND s.status IN $ENDED AND s.runner_id IS NULL
      AND greatest(s.created_at, s.last_resumed_at, s.last_sign_at,
                   (SELECT max(r.completed_at) FROM runs r WHERE r.session_id = s.session_id))
          < now() - make_interval(secs => :age)
      AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.session_id = s.session_id
                      AND r.status IN $UNFINISHED)
      AND NOT EXISTS (SELECT 1 FROM events e WHERE e.session_id = s.session_id AND e.id >= s.first_event_id)
      AND NOT EXISTS (SELECT 1 FROM ($pending) e WHERE e.id >= s.first_event_id)
      AND NOT EXISTS (SELECT 1 FROM sessions c WHERE c.parent_session_id = s.session_id AND c.status NOT IN $ENDED)
    """,
    pending=pending_events_of("s.session_id"),
)

_RUNS = text("SELECT run_id, session_id FROM runs WHERE session_id = ANY(CAST(:sessions AS text[]))")

_CHILDREN = text("""
    SELECT session_id, parent_session_id FROM sessions WHERE parent_session_id = ANY(CAST(:sessions AS text[]))
""")

_FORGET_RESULTS = text("DELETE FROM kept_results WHERE session_id = ANY(CAST(:sessions AS text[]))")


def retire_events(conn: Connection, *, older_than_days: float, most: int = MOST_EVENTS) -> int:
    """Drop the oldest events and raise the floor of the feed to the last of them; return how many were dropped.

    A prefix of the history, up to ``most`` events: it ends before the first one that is too young or locked. Events
    without a position stay. The newest result of an existing session is kept in ``kept_results``. A reader of the feed
    sees either the events or the floor above them (promise 3). Safe to repeat, also concurrently; 0 means that none is
    due, or that another transaction has locked them.
    """
    oldest = conn.execute(_OLDEST, {"age": older_than_days * _DAY, "most": most})
    wanted = _prefix([_OldEvent(*row) for row in oldest])
    if not wanted:
        return 0
    # Lock in a statement of its own, without waiting: a prefix that another transaction is dropping is skipped.
    free = set(conn.execute(_LOCK_EVENTS, {"ids": [event.id for event in wanted]}).scalars())
    dropped = list(takewhile(lambda event: event.id in free, wanted))
    if not dropped:
        return 0
    ids = [event.id for event in dropped]
    conn.execute(_KEEP_RESULTS, {"ids": ids})
    conn.execute(_DROP, {"ids": ids})
    conn.execute(_RAISE_FLOOR, {"upto": dropped[-1].feed_pos})
    return len(dropped)


class _OldEvent(NamedTuple):
    id: int
    feed_pos: int
    old: bool
    size: int


def _prefix(oldest: Sequence[_OldEvent]) -> list[_OldEvent]:
    wanted: list[_OldEvent] = []
    size = 0
    for event in takewhile(lambda event: event.old, oldest):
        size += event.size
        if wanted and size > MOST_BYTES:
            break
        wanted.append(event)
    return wanted


@dataclass(frozen=True, slots=True)
class Walked:
    """Step over the sessions, oldest first: how many were removed, where the next step begins (None: the end)."""

    removed: int
    at: tuple[datetime, str] | None


def retire_sessions(
    conn: Connection,
    *,
    older_than_days: float,
    after: tuple[datetime, str] | None = None,
    most: int = MOST_SESSIONS,
) -> Walked:
    """Remove those of the next ``most`` sessions that ended so long ago and of which no event is left. Safe to repeat.

    They are removed as by a delete: with their runs, ``session_deleted`` on the feed, their children as roots. Ended
    means: no live process, no unfinished run, no child under way. Sessions with locked rows are left to the next walk.
    """
    created_at, session_id = after or (None, "")
    where = {"created_at": created_at, "session_id": session_id, "age": older_than_days * _DAY, "most": most}
    walked = conn.execute(_WALK, where).all()
    at = (walked[-1].created_at, walked[-1].session_id) if len(walked) == most else None
    over = _over(conn, [row.session_id for row in walked], older_than_days)
    locked, whole = _try_lock_whole(conn, over)
    # Check again: a session may have been resumed before it was locked.
    gone = _over(conn, whole, older_than_days)
    if gone:
        remove_sessions(conn, locked, {session_id: DeleteSession(ADMIN, session_id) for session_id in gone})
        conn.execute(_FORGET_RESULTS, {"sessions": gone})
    return Walked(len(gone), at)


def _over(conn: Connection, session_ids: Sequence[str], older_than_days: float) -> list[str]:
    if not session_ids:
        return []
    values = {"sessions": session_ids, "age": older_than_days * _DAY}
    return list(conn.execute(_OVER, values).scalars())


def _try_lock_whole(conn: Connection, session_ids: Sequence[str]) -> tuple[LockedRows, list[str]]:
    """Lock the sessions with all their runs and children, without waiting; return also those that are locked wholly."""
    wanted = {"sessions": session_ids}
    runs = [row.run_id for row in conn.execute(_RUNS, wanted)]
    children = [row.session_id for row in conn.execute(_CHILDREN, wanted)]
    locked = try_lock_runs(conn, runs, {*session_ids, *children})
    # Read again what came before the lock; after it no run or child is added.
    partly = {row.session_id for row in conn.execute(_RUNS, wanted) if row.run_id not in locked.runs}
    partly |= {
        row.parent_session_id for row in conn.execute(_CHILDREN, wanted) if row.session_id not in locked.sessions
    }
    return locked, [
        session_id for session_id in session_ids if session_id in locked.sessions and session_id not in partly
    ]
