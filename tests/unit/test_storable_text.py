"""Text as it is stored."""

from models.core.storable_text import ERROR_BYTES, storable, storable_error


def test_what_postgres_cannot_store_is_replaced() -> None:
    """NUL and lone surrogates; all else stays."""
    assert storable("a\0b\ud800c\udfffd") == "a\ufffdb\ufffdc\ufffdd"
    assert storable("grüße 🦊") == "grüße 🦊"


def test_a_long_error_keeps_its_head_and_its_tail() -> None:
    """Within 64 KiB, cut between characters."""
    kept = storable_error("head" + "ä" * ERROR_BYTES + "tail")
    assert kept is not None
    assert len(kept.encode()) <= ERROR_BYTES
    assert kept.startswith("headä")
    assert kept.endswith("ätail")
    assert storable_error("x" * ERROR_BYTES) == "x" * ERROR_BYTES
    assert storable_error(None) is None
