"""The one feed query: events after a position, for the live feed and for clients that catch up (promise 3)."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, Select, bindparam, func, select, true

from models.schema.tables import events, feed_head
from models.state.cursors import FeedHead

# End a page after so many stored bytes: events may be large, and a page is held in memory.
PAGE_BYTES: Final = 8 << 20
# Walk at most so many positions for one page, however few events pass the filter.
SPAN: Final = 10_000


@dataclass(frozen=True, slots=True)
class FeedFilter:
    """Filter of events; None means any. ``kinds`` are the names that clients see as ``event:``."""

    kinds: frozenset[str] | None = None
    session_id: str | None = None
    run_id: str | None = None
    owner: str | None = None

    def passes(self, kind: str, session_id: str, run_id: str | None, owner: str | None) -> bool:
        """Return whether an event with these properties passes: in memory what ``read_feed`` does in Postgres."""
        return (
            (self.kinds is None or kind in self.kinds)
            and (self.session_id is None or session_id == self.session_id)
            and (self.run_id is None or run_id == self.run_id)
            and (self.owner is None or owner == self.owner)
        )


EVERYTHING: Final = FeedFilter()
SHOWN: Final = tuple(events.c[name] for name in ("feed_pos", "kind", "session_id", "run_id", "owner", "frame"))


@dataclass(frozen=True, slots=True)
class FeedEvent:
    position: int
    kind: str
    session_id: str
    run_id: str | None
    owner: str | None
    frame: str


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Events in order, and the position up to which there are no others; the head is of the same snapshot."""

    head: FeedHead
    events: list[FeedEvent]
    covers: int


def read_feed(conn: Connection, after: int, which: FeedFilter = EVERYTHING, *, limit: int) -> FeedPage:
    """Return up to ``limit`` events after the position, in order, with the head of the feed in the same snapshot.

    Nothing is missing as long as ``page.head.floor <= after``: all events above the floor in this snapshot are there,
    except those of deleted sessions.
    """
    rows = conn.execute(_page(which), {"after": after, "most": limit}).all()
    head = FeedHead(rows[0].epoch, rows[0].last_pos, rows[0].floor)
    found = [
        FeedEvent(row.feed_pos, row.kind, row.session_id, row.run_id, row.owner, row.frame)
        for row in rows
        if row.feed_pos is not None
    ]
    # Expect more right behind the last event: the page is full by number or by size.
    cut = bool(found) and (len(found) >= limit or rows[0].found > len(found))
    walked = head.position if which.session_id is not None else min(head.position, after + SPAN)
    return FeedPage(head, found, max(after, found[-1].position if cut else walked))


@lru_cache(maxsize=256)
def _page(which: FeedFilter) -> Select[Any]:
    after = bindparam("after", type_=BigInteger)
    wanted = [events.c.feed_pos > after]
    # Use the session's own index, by which the walk is short whatever lies between.
    wanted.append(
        events.c.feed_pos <= after + SPAN if which.session_id is None else events.c.session_id == which.session_id
    )
    if which.kinds is not None:
        wanted.append(events.c.kind.in_(sorted(which.kinds)))
    if which.run_id is not None:
        wanted.append(events.c.run_id == which.run_id)
    if which.owner is not None:
        wanted.append(events.c.owner == which.owner)
    found = (
        select(*SHOWN, func.pg_column_size(events.c.frame).label("size"))
        .where(*wanted)
        .order_by(events.c.feed_pos)
        .limit(bindparam("most", type_=BigInteger))
        .subquery("found")
    )
    bytes_before = func.sum(found.c.size).over(order_by=found.c.feed_pos) - found.c.size
    sized = select(found, bytes_before.label("bytes_before"), func.count().over().label("found")).subquery("sized")
    # Unpack the frames here, after the cut.
    page = select(sized).where(sized.c.bytes_before < PAGE_BYTES).subquery("page")
    return (
        select(feed_head.c.epoch, feed_head.c.last_pos, feed_head.c.floor, page)
        .select_from(feed_head.outerjoin(page, true()))
        .order_by(page.c.feed_pos)
    )
