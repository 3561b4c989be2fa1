from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from models.core.callers import Caller, Role
from models.core.errors import BadCursor, NotFound
from models.schema.sql import sql
from models.state.cursors import FeedHead, ResetReason, parse_cursor, reset_reason, write_cursor
from models.state.pending_events import pending_events_of
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
_LIST = """
    WITH numbered AS MATERIALIZED (
        SELECT n.id, n.feed_pos, row_number() OVER page AS place,
            sum(n.size) OVER page - n.size AS bytes_before
        FROM (SELECT e.id, e.feed_pos, pg_column_size(e.frame) AS size
              FROM sessions s JOIN events e ON e.session_id = s.session_id
              WHERE s.session_id = :session_id AND e.feed_pos > :after AND e.feed_pos < :before
                AND e.id >= s.first_event_id
                AND e.kind = 'event' AND (CAST(:run_id AS text) IS NULL OR e.run_id = CAST(:run_id AS text))
              ORDER BY e.feed_pos $direction LIMIT CAST(:most AS bigint) + 1) n
        WINDOW page AS (ORDER BY n.feed_pos $direction)
    ), page AS MATERIALIZED (
        SELECT id, feed_pos FROM numbered
        WHERE CAST(:most AS bigint) IS NULL OR (place <= CAST(:most AS bigint) AND bytes_before < :bytes)
    ), rest AS (
        SELECT e.id, e.run_id, e.frame FROM sessions s
        CROSS JOIN LATERAL (
            SELECT id, kind, run_id, frame FROM events WHERE session_id = s.session_id AND feed_pos IS NULL
            UNION ALL
            SELECT id, kind, run_id, frame FROM ($pending) batched
        ) e
        WHERE s.session_id = :session_id AND e.id >= s.first_event_id AND e.kind = 'event'
          AND (CAST(:run_id AS text) IS NULL OR e.run_id = CAST(:run_id AS text))
          AND :before = $endless AND ($has_rest)
    )
    SELECT h.epoch, h.last_pos, h.floor, s.session_id, e.id, e.feed_pos, e.run_id, CAST(e.frame AS text) AS frame,
        (SELECT count(*) FROM page) < (SELECT count(*) FROM numbered) AS more
    FROM feed_head h
    LEFT JOIN sessions s
        ON s.session_id = :session_id AND (CAST(:owner AS text) IS NULL OR s.owner = CAST(:owner AS text))
    LEFT JOIN (
        SELECT id, e.feed_pos, e.run_id, e.frame FROM page JOIN events e USING (id)
        UNION ALL
        SELECT id, NULL, run_id, frame FROM rest
    ) e ON s.session_id IS NOT NULL
    ORDER BY e.feed_pos $direction, e.id $direction
"""
ENDLESS: Final = 2**63 - 1
_PENDING = pending_events_of("s.session_id")
# What has no position yet comes last: on the last page forwards, on the first page backwards.
_FORWARDS = sql(
    _LIST,
    direction="ASC",
    endless=str(ENDLESS),
    has_rest="(SELECT count(*) FROM page) = (SELECT count(*) FROM numbered)",
    pending=_PENDING,
)
_BACKWARDS = sql(_LIST, direction="DESC", endless=str(ENDLESS), has_rest="true", pending=_PENDING)


def list_events(
    conn: Connection,
    caller: Caller,
    session_id: str,
    *,
    run_id: str | None = None,
    after: str | None = None,
    before: str | None = None,
    limit: int | None = None,
    newest_first: bool = False,
) -> EventPage | NotFound | BadCursor:
    """Return a session's events, or one run's of them, between the cursors, in feed order or against it.

    A page holds at most ``limit`` numbered events; what is not numbered comes at the end of the feed's order, whole,
    and not with ``before``. So a walk from page to page, by ``next_cursor`` until it is None, sees every event of its
    time once; ``next_cursor`` is the next ``after``, or with ``newest_first`` the next ``before``.
    """
    cursors = [parse_cursor(given) for given in (after, before) if given is not None]
    for given, cursor in zip([given for given in (after, before) if given is not None], cursors, strict=True):
        if cursor is None:
            return BadCursor(given)
    if caller.role is Role.RUNNER and not find_visible(conn, [(caller, session_id)]):
        return NotFound("session", session_id)
    parameters = {
        "session_id": session_id,
        "owner": owner_filter(caller),
        "run_id": run_id,
        "after": _position(after, 0),
        "before": _position(before, ENDLESS),
        "most": limit,
        "bytes": PAGE_BYTES,
    }
    rows = conn.execute(_BACKWARDS if newest_first else _FORWARDS, parameters).all()
    head = rows[0]
    if head.session_id is None:
        return NotFound("session", session_id)
    at = FeedHead(head.epoch, head.last_pos, head.floor)
    if any(reset_reason(cursor, at) not in {None, *(() if after else (ResetReason.EXPIRED,))} for cursor in cursors):
        return BadCursor(after or before or "")
    found = [
        Event(row.id, None if row.feed_pos is None else write_cursor(head.epoch, row.feed_pos), row.frame, row.run_id)
        for row in rows
        if row.id is not None
    ]
    return EventPage(found, found[-1].feed_cursor if head.more else None, write_cursor(head.epoch, head.last_pos))


def _position(given: str | None, otherwise: int) -> int:
    cursor = None if given is None else parse_cursor(given)
    return otherwise if cursor is None else cursor.position
