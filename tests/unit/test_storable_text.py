"""Check how text is made storable."""

from models.core.storable_text import ERROR_BYTES, storable, storable_error


def test_characters_that_postgres_cannot_store_are_replaced() -> None:
    """Replace NUL and lone surrogates only."""
    assert storable("a\0b\ud800c\udfffd") == "a\ufffdb\ufffdc\ufffdd"
    assert storable("grüße 🦊") == "grüße 🦊"


def test_long_error_keeps_its_head_and_its_tail() -> None:
    """Cut it to 64 KiB, between characters."""
    kept = storable_error("head" + "ä" * ERROR_BYTES + "tail")
    assert kept is not None
    assert len(kept.encode()) <= ERROR_BYTES
    assert kept.startswith("headä")
    assert kept.endswith("ätail")
    assert storable_error("x" * ERROR_BYTES) == "x" * ERROR_BYTES
    assert storable_error(None) is None
