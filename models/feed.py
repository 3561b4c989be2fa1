"""The feed's rows: written with the change they tell of, numbered after its commit."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from models.base import uuid7


@dataclass(frozen=True, slots=True)
class EventRow:
    """One line of history. ``frame`` is the JSON text that every client will be sent, fixed now."""

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
    conn.execute(
        _RECORD,
        {
            "kinds": [row.kind for row in rows],
            "sessions": [row.session_id for row in rows],
            "frames": [row.frame for row in rows],
            "owners": [row.owner for row in rows],
            "runs": [row.run_id for row in rows],
            "types": [row.event_type for row in rows],
            "uids": [row.event_uid for row in rows],
        },
    )


def encode(frame: dict[str, Any]) -> str:
    """Return the frame as compact JSON text; what the caller puts in holds no surrogates."""
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))


def sequence_feed(conn: Connection) -> int:
    """Number up to 1,000 unnumbered events in id order and return how many there were.

    Wants an autocommit connection: the function itself is the transaction, so no client pause can hold its locks.
    """
    return int(conn.execute(text("SELECT sequence_feed()")).scalar_one())


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the feed: all up to ``position`` has been seen."""

    epoch: str
    position: int


def write_cursor(epoch: str, position: int) -> str:
    """Return the text by which clients name a place in the feed, ``v1.<epoch>.<pos>``."""
    return f"v1.{epoch}.{position}"


def parse_cursor(cursor: str) -> Cursor | None:
    """Return what the text says, None when it is malformed."""
    version, _, rest = cursor.partition(".")
    epoch, _, position = rest.partition(".")
    if version != "v1" or not epoch or not (position.isascii() and position.isdigit()) or len(position) > 18:
        return None
    return Cursor(epoch, int(position))


def feed_position(conn: Connection) -> str:
    """Return the cursor of the newest numbered event."""
    row = conn.execute(text("SELECT epoch, last_pos FROM feed_head")).one()
    return write_cursor(row.epoch, row.last_pos)
