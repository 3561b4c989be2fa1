"""Cursors: the text by which clients name a place in the feed, and whether the feed can go on from it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

VERSION: Final = "v1"
# A position of more digits is none of ours, and none that Postgres could compare.
MOST_DIGITS: Final = 18
SNAPSHOT_OWED: Final = "~init"


class Lost(StrEnum):
    """Why the feed cannot go on from a cursor (PROTOCOL, Feed: the reasons of ``reset``)."""

    MALFORMED = "malformed"
    EPOCH = "epoch"
    AHEAD = "ahead"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the feed: all up to ``position`` has been seen.

    ``owed``: except for the snapshot, which was announced and had not arrived: whoever comes back with this cursor
    gets a fresh one.
    """

    epoch: str
    position: int
    owed: bool = False

    def __str__(self) -> str:
        return write_cursor(self.epoch, self.position, owed=self.owed)


def write_cursor(epoch: str, position: int, *, owed: bool = False) -> str:
    """Return the text of a cursor, ``v1.<epoch>.<pos>``, with ``~init`` behind the epoch while a snapshot is owed."""
    return f"{VERSION}.{epoch}{SNAPSHOT_OWED if owed else ''}.{position}"


def parse_cursor(cursor: str) -> Cursor | None:
    """Return what the text says, None when it is malformed."""
    version, _, rest = cursor.partition(".")
    named, _, position = rest.partition(".")
    epoch = named.removesuffix(SNAPSHOT_OWED)
    if version != VERSION or not epoch or not (position.isascii() and position.isdigit()):
        return None
    if len(position) > MOST_DIGITS:
        return None
    return Cursor(epoch, int(position), owed=epoch != named)


def lost(cursor: Cursor | None, head: "FeedHead") -> Lost | None:
    """Return why the feed cannot go on from the cursor, None when it can; a cursor of None is a malformed one.

    ``head`` must have been read after the cursor came: another instance may have given it out a moment ago.
    """
    if cursor is None:
        return Lost.MALFORMED
    if cursor.epoch != head.epoch:
        return Lost.EPOCH
    if cursor.position > head.position:
        return Lost.AHEAD
    if cursor.position < head.floor:
        return Lost.EXPIRED
    return None


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
