"""Check how feed cursors are written and read, and from which ones the feed can be resumed."""

import pytest

from models.state.cursors import Cursor, FeedHead, ResetReason, parse_cursor, reset_reason, write_cursor

HEAD = FeedHead("e1", position=100, floor=10)


@pytest.mark.parametrize("cursor", [Cursor("e1", 0), Cursor("e1", 10**18 - 1), Cursor("e1", 7, owed=True)])
def test_cursor_round_trips(cursor: Cursor) -> None:
    assert str(cursor).count(".") == 2
    assert parse_cursor(str(cursor)) == cursor


def test_plain_cursor_is_version_epoch_and_position() -> None:
    """Mark the epoch while a snapshot is owed (PROTOCOL, Feed)."""
    assert write_cursor("abc", 5) == "v1.abc.5"
    assert write_cursor("abc", 5, owed=True) == "v1.abc~init.5"


@pytest.mark.parametrize(
    "text",
    [
        *("", "junk", "v1", "v1.e1", "v1.e1.", "v1..5", "v1.~init.5", "v2.e1.5", "v1.e1.-5", "v1.e1.5.6", "v1.e1.1e3"),
        *("v1.e1.\uff15", "v1.e1." + "9" * 19, "v1.e1.5 ", "5", "\x00", "v1.e1.\x00", "\ud800"),
    ],
)
def test_other_texts_are_malformed_cursors(text: str) -> None:
    """Include digits of other scripts and numbers beyond Postgres's range."""
    assert parse_cursor(text) is None
    assert reset_reason(parse_cursor(text), HEAD) is ResetReason.MALFORMED


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        (Cursor("e1", 100), None),
        (Cursor("e1", 55), None),
        (Cursor("e1", 10), None),
        (Cursor("e1", 9), ResetReason.EXPIRED),
        (Cursor("e1", 0), ResetReason.EXPIRED),
        (Cursor("e1", 101), ResetReason.AHEAD),
        (Cursor("e2", 55), ResetReason.EPOCH),
        (Cursor("e2", 0), ResetReason.EPOCH),
    ],
)
def test_feed_resumes_at_or_above_oldest_position(cursor: Cursor, reason: ResetReason | None) -> None:
    """The oldest position itself is resumable: everything above it is stored."""
    assert reset_reason(cursor, HEAD) is reason
