from dataclasses import dataclass
from enum import StrEnum
from typing import Final

VERSION: Final = "v1"
# Reject positions of more digits: none is given out, and Postgres could not compare them.
MOST_DIGITS: Final = 18
SNAPSHOT_OWED: Final = "~init"


class ResetReason(StrEnum):
    MALFORMED = "malformed"
    EPOCH = "epoch"
    AHEAD = "ahead"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Cursor:
    """Place in the feed: all events up to ``position`` have been seen.

    ``owed``: a snapshot was announced and had not arrived; a client that returns with this cursor gets a
    fresh one.
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
    version, _, rest = cursor.partition(".")
    named, _, position = rest.partition(".")
    epoch = named.removesuffix(SNAPSHOT_OWED)
    if version != VERSION or not epoch or not (position.isascii() and position.isdigit()):
        return None
    if len(position) > MOST_DIGITS:
        return None
    return Cursor(epoch, int(position), owed=epoch != named)


def reset_reason(cursor: Cursor | None, head: "FeedHead") -> ResetReason | None:
    """Return why the feed cannot go on from the cursor, None when it can; a cursor of None is a malformed one.

    ``head`` must have been read after the cursor came: another instance may have given it out a moment ago.
    """
    if cursor is None:
        return ResetReason.MALFORMED
    if cursor.epoch != head.epoch:
        return ResetReason.EPOCH
    if cursor.position > head.position:
        return ResetReason.AHEAD
    if cursor.position < head.floor:
        return ResetReason.EXPIRED
    return None


@dataclass(frozen=True, slots=True)
class FeedHead:
    """Head of the feed at one moment: its newest position, and the one up to which events have been dropped."""

    epoch: str
    position: int
    floor: int

    @property
    def cursor(self) -> str:
        return write_cursor(self.epoch, self.position)
