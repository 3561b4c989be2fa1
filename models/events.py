"""A session's own timeline: events that runners write, stored once each, and their list in feed order."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import Connection, Row, text

from models.base import Caller, Role, uuid7
from models.cursors import lost, parse_cursor, write_cursor
from models.errors import BadCursor, NotFound, StaleClaim
from models.feed import EventRow, FeedHead, record_with_ids
from models.reach import reach, sees

# A page ends after so many bytes, as stored: events may be large, and a page is held in memory.
PAGE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event as it came. ``frame`` is the JSON text ``{"data": {…}}`` that every client will be sent.

    ``event_key`` is the client's, unique in its session; ``event_uid`` is ours, made before the first try.
    """

    session_id: str
    caller: Caller
    event_type: str
    frame: str
    event_key: str | None = None
    claim_token: str | None = None
    event_uid: str = field(default_factory=uuid7)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """The id of the event, the same for each repeat of it."""

    id: int


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a list; ``feed_cursor`` is None while it is not numbered."""

    id: int
    feed_cursor: str | None
    frame: str

    @property
    def data(self) -> str:
        """The JSON text of the event's fields, as it was stored."""
        return self.frame[self.frame.index("{", 1) : self.frame.rindex("}")].rstrip()


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in feed order. ``feed_cursor`` is the feed's position in the same snapshot."""

    events: list[Event]
    next_cursor: str | None
    feed_cursor: str


AppendResult: TypeAlias = StoredEvent | NotFound | StaleClaim

# The weakest lock that keeps a delete and a change of claim out: batches of events do not wait for each other.
_HOLD_SESSIONS = text("""
    SELECT session_id, owner, incarnation,
        coalesce(last_sign_at < now() - interval '5 seconds', true) AS quiet
    FROM sessions WHERE session_id = ANY(CAST(:sessions AS text[])) ORDER BY session_id FOR KEY SHARE
""")

_ACTIVE = text("""
    SELECT session_id, run_id, status, claim_token FROM runs
    WHERE session_id = ANY(CAST(:sessions AS text[])) AND status IN ('claimed', 'running', 'stopping')
""")

# What is asked after the end of a run, when nobody else has claimed it since.
_TOKENS = text("""
    SELECT r.session_id, r.claim_token, r.run_id
    FROM unnest(CAST(:sessions AS text[]), CAST(:tokens AS text[])) AS t(session_id, claim_token)
    JOIN runs r ON r.session_id = t.session_id AND r.claim_token = t.claim_token
""")

# One that somebody holds is being given a sign by a report, or by another batch of events.
_SIGN = text("""
    UPDATE sessions s SET last_sign_at = clock_timestamp()
    FROM (SELECT session_id FROM sessions WHERE session_id = ANY(CAST(:sessions AS text[]))
          ORDER BY session_id FOR NO KEY UPDATE SKIP LOCKED) quiet
    WHERE s.session_id = quiet.session_id
""")


def append_events(conn: Connection, items: Sequence[NewEvent]) -> list[AppendResult]:
    """Store events in item order (PROTOCOL, Sessions); one with the key of a stored one is that one. Safe to repeat.

    NotFound for an unknown session, StaleClaim for a token that is not, or no longer, a run's of the session.
    """
    wanted = sorted({item.session_id for item in items})
    found = {row.session_id: row for row in conn.execute(_HOLD_SESSIONS, {"sessions": wanted})}
    active = {row.session_id: row for row in conn.execute(_ACTIVE, {"sessions": list(found)})}
    ended = _ended_claims(conn, items, active)
    reached = reach(conn, [(item.caller, item.session_id) for item in items])
    refused: dict[int, NotFound | StaleClaim] = {}
    rows: dict[int, EventRow] = {}
    for place, item in enumerate(items):
        session, run = found.get(item.session_id), active.get(item.session_id)
        if session is None or not sees(item.caller, item.session_id, session.owner, reached):
            refused[place] = NotFound("session", item.session_id)
            continue
        run_id = run.run_id if run is not None else None
        if item.claim_token is not None and (run is None or run.claim_token != item.claim_token):
            run_id = ended.get((item.session_id, item.claim_token))
            if run_id is None:
                refused[place] = StaleClaim(run.run_id if run else "", run.status if run else "")
                continue
        uid = item.event_uid if item.event_key is None else f"{session.incarnation}:{item.event_key}"
        rows[place] = EventRow("event", item.session_id, item.frame, session.owner, run_id, item.event_type, uid)
    ids = record_with_ids(conn, list(rows.values()))
    quiet = sorted({row.session_id for row in rows.values() if found[row.session_id].quiet})
    if quiet:
        conn.execute(_SIGN, {"sessions": quiet})
    stored = {place: StoredEvent(ids[row.event_uid]) for place, row in rows.items()}
    return [stored[place] if place in stored else refused[place] for place in range(len(items))]


def _ended_claims(
    conn: Connection,
    items: Sequence[NewEvent],
    active: dict[str, Row[Any]],
) -> dict[tuple[str, str], str]:
    """Return the runs of the tokens that are not those of the active runs."""
    unknown = {
        (item.session_id, item.claim_token)
        for item in items
        if item.claim_token is not None
        and not (item.session_id in active and active[item.session_id].claim_token == item.claim_token)
    }
    if not unknown:
        return {}
    pairs = {"sessions": [session_id for session_id, _ in unknown], "tokens": [token for _, token in unknown]}
    return {(row.session_id, row.claim_token): row.run_id for row in conn.execute(_TOKENS, pairs)}


# One statement, so one snapshot: every event is either numbered behind the cursor or not numbered yet.
_LIST = text("""
    WITH numbered AS MATERIALIZED (
        SELECT n.id, n.feed_pos, row_number() OVER page AS place,
            sum(n.size) OVER page - n.size AS bytes_before
        FROM (SELECT e.id, e.feed_pos, pg_column_size(e.frame) AS size
              FROM sessions s JOIN events e ON e.session_id = s.session_id
              WHERE s.session_id = :session_id AND e.feed_pos > :after AND e.id >= s.first_event_id
                AND e.kind = 'event'
              ORDER BY e.feed_pos LIMIT CAST(:most AS bigint) + 1) n
        WINDOW page AS (ORDER BY n.feed_pos)
    ), page AS MATERIALIZED (
        SELECT id, feed_pos FROM numbered
        WHERE CAST(:most AS bigint) IS NULL OR (place <= CAST(:most AS bigint) AND bytes_before < :bytes)
    ), rest AS (
        SELECT e.id FROM sessions s JOIN events e ON e.session_id = s.session_id
        WHERE s.session_id = :session_id AND e.feed_pos IS NULL AND e.id >= s.first_event_id AND e.kind = 'event'
          AND (SELECT count(*) FROM page) = (SELECT count(*) FROM numbered)
    )
    SELECT h.epoch, h.last_pos, h.floor, s.session_id, e.id, e.feed_pos, CAST(e.frame AS text) AS frame,
        (SELECT count(*) FROM page) < (SELECT count(*) FROM numbered) AS more
    FROM feed_head h
    LEFT JOIN sessions s
        ON s.session_id = :session_id AND (CAST(:owner AS text) IS NULL OR s.owner = CAST(:owner AS text))
    LEFT JOIN ((SELECT id FROM page UNION ALL SELECT id FROM rest) wanted JOIN events e USING (id))
        ON s.session_id IS NOT NULL
    ORDER BY e.feed_pos, e.id
""")


def list_events(
    conn: Connection,
    caller: Caller,
    session_id: str,
    *,
    after: str | None = None,
    limit: int | None = None,
) -> EventPage | NotFound | BadCursor:
    """Return a session's events in feed order, those not numbered yet last, after the cursor.

    A page holds at most ``limit`` numbered events; what is not numbered comes on the last page only, whole. So a walk
    from page to page, by ``next_cursor`` until it is None, sees every event of its time once.
    """
    cursor = parse_cursor(after) if after is not None else None
    if after is not None and cursor is None:
        return BadCursor(after)
    if caller.role is Role.RUNNER and not reach(conn, [(caller, session_id)]):
        return NotFound("session", session_id)
    parameters = {
        "session_id": session_id,
        "owner": None if caller.role is Role.RUNNER else caller.scope,
        "after": cursor.position if cursor else 0,
        "most": limit,
        "bytes": PAGE_BYTES,
    }
    rows = conn.execute(_LIST, parameters).all()
    head = rows[0]
    if head.session_id is None:
        return NotFound("session", session_id)
    if after is not None and lost(cursor, FeedHead(head.epoch, head.last_pos, head.floor)) is not None:
        return BadCursor(after)
    found = [
        Event(row.id, None if row.feed_pos is None else write_cursor(head.epoch, row.feed_pos), row.frame)
        for row in rows
        if row.id is not None
    ]
    return EventPage(found, found[-1].feed_cursor if head.more else None, write_cursor(head.epoch, head.last_pos))
