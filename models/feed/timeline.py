"""Lists the events of a session or run in feed order."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from models.core.callers import Caller, Role
from models.core.errors import BadCursor, NotFound
from models.state.cursors import FeedHead, parse_cursor, reset_reason, write_cursor
from models.state.visibility import find_visible, owner_filter

# End a page after so many stored bytes: events may be large, and a page is in memory until a client takes it.
PAGE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    feed_cursor: str | None
    frame: str
    run_id: str | None

    @property
    def data(self) -> str:
        return self.frame[self.frame.index("{", 1) : self.frame.rindex("}")].rstrip()


@dataclass(frozen=True, slots=True)
class EventPage:
    events: list[Event]
    next_cursor: str | None
    feed_cursor: str


# Read in one statement, so in one snapshot: every event is either numbered behind the cursor or not numbered yet.
_LIST = text("""
    WITH numbered AS MATERIALIZED (
        SELECT n.id, n.feed_pos, row_number() OVER page AS place,
            sum(n.size) OVER page - n.size AS bytes_before
        FROM (SELECT e.id, e.feed_pos, pg_column_size(e.frame) AS size
              FROM sessions s JOIN events e ON e.session_id = s.session_id
              WHERE s.session_id = :session_id AND e.feed_pos > :after AND e.id >= s.first_event_id
                AND e.kind = 'event' AND (CAST(:run_id AS text) IS NULL OR e.run_id = CAST(:run_id AS text))
              ORDER BY e.feed_pos LIMIT CAST(:most AS bigint) + 1) n
        WINDOW page AS (ORDER BY n.feed_pos)
    ), page AS MATERIALIZED (
        SELECT id, feed_pos FROM numbered
        WHERE CAST(:most AS bigint) IS NULL OR (place <= CAST(:most AS bigint) AND bytes_before < :bytes)
    ), rest AS (
        SELECT e.id FROM sessions s JOIN events e ON e.session_id = s.session_id
        WHERE s.session_id = :session_id AND e.feed_pos IS NULL AND e.id >= s.first_event_id AND e.kind = 'event'
          AND (CAST(:run_id AS text) IS NULL OR e.run_id = CAST(:run_id AS text))
          AND (SELECT count(*) FROM page) = (SELECT count(*) FROM numbered)
    )
    SELECT h.epoch, h.last_pos, h.floor, s.session_id, e.id, e.feed_pos, e.run_id, CAST(e.frame AS text) AS frame,
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
    run_id: str | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> EventPage | NotFound | BadCursor:
    """Return a session's events, or one run's of them, in feed order, those not numbered yet last, after the cursor.

    A page holds at most ``limit`` numbered events; what is not numbered comes on the last page only, whole. So a walk
    from page to page, by ``next_cursor`` until it is None, sees every event of its time once.
    """
    cursor = parse_cursor(after) if after is not None else None
    if after is not None and cursor is None:
        return BadCursor(after)
    if caller.role is Role.RUNNER and not find_visible(conn, [(caller, session_id)]):
        return NotFound("session", session_id)
    parameters = {
        "session_id": session_id,
        "owner": owner_filter(caller),
        "run_id": run_id,
        "after": cursor.position if cursor else 0,
        "most": limit,
        "bytes": PAGE_BYTES,
    }
    rows = conn.execute(_LIST, parameters).all()
    head = rows[0]
    if head.session_id is None:
        return NotFound("session", session_id)
    if after is not None and reset_reason(cursor, FeedHead(head.epoch, head.last_pos, head.floor)) is not None:
        return BadCursor(after)
    found = [
        Event(row.id, None if row.feed_pos is None else write_cursor(head.epoch, row.feed_pos), row.frame, row.run_id)
        for row in rows
        if row.id is not None
    ]
    return EventPage(found, found[-1].feed_cursor if head.more else None, write_cursor(head.epoch, head.last_pos))
