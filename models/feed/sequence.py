from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from models.schema.driver import fetch_all
from models.state.cursors import FeedHead

# Events that a pass numbers at most; as many leave work for another one.
PASS_EVENTS: Final = 1000


@dataclass(frozen=True, slots=True)
class Numbered:
    """Result of a pass: number of its events, and a position that covers all that was committed before it."""

    count: int
    head: int


def sequence_feed(conn: Connection) -> int:
    """Number PASS_EVENTS unnumbered events in id order, or fewer, the last batch wholly; return how many there were.

    Needs an autocommit connection: the function itself is the transaction, so no pause of the client can hold its
    locks.
    """
    return int(conn.execute(text("SELECT sequence_feed()")).scalar_one())


# The head is locked by the subquery, with its newest values, before the function is called: last_pos is the position
# before this pass, whatever was numbered since the statement began.
_NUMBER_UNLESS_BUSY = text("""
    WITH unnumbered AS MATERIALIZED (
        SELECT EXISTS (SELECT FROM events e WHERE e.feed_pos IS NULL AND e.id > h.numbered_below)
            OR (SELECT b.first_id FROM unnumbered_batches b WHERE b.first_id > h.numbered_below
                ORDER BY b.first_id LIMIT 1) IS NOT NULL AS found,
            h.last_pos
        FROM feed_head h
    )
    SELECT unnumbered.found, unnumbered.last_pos, locked.last_pos AS locked_last_pos,
        CASE WHEN locked.last_pos IS NOT NULL THEN sequence_feed() END AS numbered
    FROM unnumbered
    LEFT JOIN LATERAL (
        SELECT last_pos FROM feed_head WHERE unnumbered.found FOR UPDATE SKIP LOCKED
    ) locked ON true
""")


def number_unless_busy(conn: Connection) -> Numbered | None:
    """Number like `sequence_feed`, but wait for no other pass: return None while one is under way.

    Then call again: the other pass may have begun before the caller's commit. Needs an autocommit connection. When
    nothing is unnumbered nothing is locked or written.
    """
    ((found, last_pos, locked_last_pos, numbered),) = fetch_all(conn, _NUMBER_UNLESS_BUSY)
    if not found:
        return Numbered(0, last_pos)
    return None if locked_last_pos is None else Numbered(numbered, locked_last_pos + numbered)


# Search above the watermark only: below it all was numbered long ago, and a pinned horizon may keep dead entries there.
_LOOK = text("""
    SELECT h.epoch, h.last_pos, h.floor, coalesce(least((
        SELECT e.created_at FROM events e WHERE e.feed_pos IS NULL AND e.id > h.numbered_below ORDER BY e.id LIMIT 1
    ), (
        SELECT b.created_at FROM unnumbered_batches b WHERE b.first_id > h.numbered_below ORDER BY b.first_id LIMIT 1
    )) < clock_timestamp() - make_interval(secs => :age), false) AS overdue
    FROM feed_head h
""")


_LOWER_WATERMARK = text("""
    UPDATE feed_head
    SET numbered_below = least(numbered_below, late.id - 1), next_floor = least(next_floor, late.id - 1)
    FROM (SELECT least((SELECT min(id) FROM events WHERE feed_pos IS NULL),
                       (SELECT min(first_id) FROM unnumbered_batches)) AS id) late
    WHERE late.id <= feed_head.numbered_below
""")


def lower_numbering_watermark(conn: Connection) -> bool:
    """Lower the watermark to an event whose commit took longer than it allows; return whether there is one.

    The next pass numbers the event. Needed so rarely that a look now and then is enough.
    """
    return conn.execute(_LOWER_WATERMARK).rowcount > 0


def read_head(conn: Connection) -> FeedHead:
    row = conn.execute(text("SELECT epoch, last_pos, floor FROM feed_head")).one()
    return FeedHead(row.epoch, row.last_pos, row.floor)


def read_head_and_overdue(conn: Connection, age: float) -> tuple[FeedHead, bool]:
    """Return the head of the feed, and whether an event written ``age`` seconds ago has no position yet.

    Such an event shows that no worker is numbering.
    """
    row = conn.execute(_LOOK, {"age": age}).one()
    return FeedHead(row.epoch, row.last_pos, row.floor), row.overdue
