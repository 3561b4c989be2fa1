"""What a cursor says, and from which one the feed can go on."""

import pytest

from models.state.cursors import Cursor, FeedHead, Lost, lost, parse_cursor, write_cursor

HEAD = FeedHead("e1", position=100, floor=10)


@pytest.mark.parametrize("cursor", [Cursor("e1", 0), Cursor("e1", 10**18 - 1), Cursor("e1", 7, owed=True)])
def test_a_cursor_is_read_as_it_was_written(cursor: Cursor) -> None:
    """Three parts between dots, whatever it says."""
    assert str(cursor).count(".") == 2
    assert parse_cursor(str(cursor)) == cursor


def test_a_plain_cursor_is_version_epoch_and_position() -> None:
    """As PROTOCOL writes it; while a snapshot is owed the epoch says so."""
    assert write_cursor("abc", 5) == "v1.abc.5"
    assert write_cursor("abc", 5, owed=True) == "v1.abc~init.5"


@pytest.mark.parametrize(
    "text",
    [
        *("", "junk", "v1", "v1.e1", "v1.e1.", "v1..5", "v1.~init.5", "v2.e1.5", "v1.e1.-5", "v1.e1.5.6", "v1.e1.1e3"),
        *("v1.e1.\uff15", "v1.e1." + "9" * 19, "v1.e1.5 ", "5", "\x00", "v1.e1.\x00", "\ud800"),
    ],
)
def test_anything_else_is_malformed(text: str) -> None:
    """Digits of other scripts and numbers beyond Postgres's included."""
    assert parse_cursor(text) is None
    assert lost(parse_cursor(text), HEAD) is Lost.MALFORMED


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        (Cursor("e1", 100), None),
        (Cursor("e1", 55), None),
        (Cursor("e1", 10), None),
        (Cursor("e1", 9), Lost.EXPIRED),
        (Cursor("e1", 0), Lost.EXPIRED),
        (Cursor("e1", 101), Lost.AHEAD),
        (Cursor("e2", 55), Lost.EPOCH),
        (Cursor("e2", 0), Lost.EPOCH),
    ],
)
def test_the_feed_goes_on_from_what_it_still_has(cursor: Cursor, reason: Lost | None) -> None:
    """The floor itself is seen already: what is above it is all there."""
    assert lost(cursor, HEAD) is reason
