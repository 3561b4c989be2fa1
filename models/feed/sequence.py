"""Number the feed's events after their commit, and read the head of the feed."""

from sqlalchemy import Connection, text

from models.state.cursors import FeedHead


def sequence_feed(conn: Connection) -> int:
    """Number up to 1,000 unnumbered events in id order and return how many there were.

    Needs an autocommit connection: the function itself is the transaction, so no pause of the client can hold its
    locks.
    """
    return int(conn.execute(text("SELECT sequence_feed()")).scalar_one())


# Search above the watermark only: below it all was numbered long ago, and a pinned horizon may keep dead entries there.
_LOOK = text("""
    SELECT h.epoch, h.last_pos, h.floor, coalesce((
        SELECT e.created_at FROM events e WHERE e.feed_pos IS NULL AND e.id > h.numbered_below ORDER BY e.id LIMIT 1
    ) < clock_timestamp() - make_interval(secs => :age), false) AS overdue
    FROM feed_head h
""")


_LOWER_WATERMARK = text("""
    UPDATE feed_head
    SET numbered_below = least(numbered_below, late.id - 1), next_floor = least(next_floor, late.id - 1)
    FROM (SELECT min(id) AS id FROM events WHERE feed_pos IS NULL) late WHERE late.id <= feed_head.numbered_below
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
