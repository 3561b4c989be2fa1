"""Number the feed's events after their commit, and read where the feed stands."""

from sqlalchemy import Connection, text

from models.state.cursors import FeedHead


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


def lower_numbering_watermark(conn: Connection) -> bool:
    """Let the next pass number an event that somebody held back for longer than the floor allows; whether there is one.

    The net under the floor of ``sequence_feed``: seldom worth more than a look now and then.
    """
    return conn.execute(_LOWER_FLOOR).rowcount > 0


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
