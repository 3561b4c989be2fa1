"""The feed's rows: written with the change they tell of, numbered after its commit."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, text

from models.base import uuid7
from models.cursors import write_cursor


@dataclass(frozen=True, slots=True)
class EventRow:
    """One line of history. ``frame`` is the JSON text that every client will be sent, fixed now.

    ``session_id`` is empty where none is concerned.
    """

    kind: str
    session_id: str
    frame: str
    owner: str | None = None
    run_id: str | None = None
    event_type: str | None = None
    event_uid: str = field(default_factory=uuid7)


_RECORD = text("""
    INSERT INTO events (kind, session_id, frame, owner, run_id, event_type, event_uid)
    SELECT e.kind, e.session_id, CAST(e.frame AS json), e.owner, e.run_id, e.event_type, e.event_uid
    FROM unnest(CAST(:kinds AS text[]), CAST(:sessions AS text[]), CAST(:frames AS text[]), CAST(:owners AS text[]),
                CAST(:runs AS text[]), CAST(:types AS text[]), CAST(:uids AS text[]))
         WITH ORDINALITY AS e(kind, session_id, frame, owner, run_id, event_type, event_uid, place)
    ORDER BY e.place
    ON CONFLICT (event_uid) DO NOTHING
""")


def record_events(conn: Connection, rows: Sequence[EventRow]) -> None:
    """Insert the rows in order; one whose ``event_uid`` is stored already is left out.

    Call it after the rows it tells of are locked, so that ids are in causal order (promise 3).
    """
    if not rows:
        return
    values = {
        "kinds": [row.kind for row in rows],
        "sessions": [row.session_id for row in rows],
        "frames": [row.frame for row in rows],
        "owners": [row.owner for row in rows],
        "runs": [row.run_id for row in rows],
        "types": [row.event_type for row in rows],
        "uids": [row.event_uid for row in rows],
    }
    conn.execute(_RECORD, values)


def encode(frame: dict[str, Any]) -> str:
    """Return the frame as compact JSON text; what the caller puts in holds no surrogates."""
    return orjson.dumps(frame).decode()


def sequence_feed(conn: Connection) -> int:
    """Number up to 1,000 unnumbered events in id order and return how many there were.

    Wants an autocommit connection: the function itself is the transaction, so no client pause can hold its locks.
    """
    return int(conn.execute(text("SELECT sequence_feed()")).scalar_one())


# Above the floor only: below it all was numbered long ago, and a pinned horizon may keep dead entries there.
_LOOK = text("""
    SELECT h.epoch, h.last_pos, h.floor, coalesce((
        SELECT e.created_at FROM events e WHERE e.feed_pos IS NULL AND e.id > h.numbered_below ORDER BY e.id LIMIT 1
    ) < clock_timestamp() - make_interval(secs => :age), false) AS overdue
    FROM feed_head h
""")

_LOWER_FLOOR = text("""
    UPDATE feed_head
    SET numbered_below = least(numbered_below, late.id - 1), next_floor = least(next_floor, late.id - 1)
    FROM (SELECT min(id) AS id FROM events WHERE feed_pos IS NULL) late WHERE late.id <= feed_head.numbered_below
""")


def lower_feed_floor(conn: Connection) -> bool:
    """Let the next pass number an event that somebody held back for longer than the floor allows; whether there is one.

    The net under the floor of ``sequence_feed``: seldom worth more than a look now and then.
    """
    return conn.execute(_LOWER_FLOOR).rowcount > 0


@dataclass(frozen=True, slots=True)
class FeedHead:
    """The feed at one moment: its newest position, and the one up to which events have been dropped."""

    epoch: str
    position: int
    floor: int

    @property
    def cursor(self) -> str:
        """The cursor of the newest numbered event."""
        return write_cursor(self.epoch, self.position)


def read_head(conn: Connection) -> FeedHead:
    """Return the head of the feed as it is now."""
    row = conn.execute(text("SELECT epoch, last_pos, floor FROM feed_head")).one()
    return FeedHead(row.epoch, row.last_pos, row.floor)


def look_at_feed(conn: Connection, age: float) -> tuple[FeedHead, bool]:
    """Return the head of the feed, and whether an event written ``age`` seconds ago has no position yet.

    Then whoever should have numbered it is away.
    """
    row = conn.execute(_LOOK, {"age": age}).one()
    return FeedHead(row.epoch, row.last_pos, row.floor), row.overdue
