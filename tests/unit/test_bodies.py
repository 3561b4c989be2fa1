"""Submissions: what no database could keep is refused and named, never echoed."""

import json
from typing import Any

import pytest

from app.http.bodies import MAX_VALUES, Invalid, TooLarge, first_fault, parse_strict


def fault_of(raw: bytes) -> tuple[str, tuple[Any, ...]] | None:
    document = parse_strict(raw)
    fault = first_fault(document.value, ("body",)) if document.suspect else None
    return (fault.type, fault.loc) if fault else None


@pytest.mark.parametrize(
    ("raw", "kind", "loc"),
    [
        (b'{"a": NaN}', "number_out_of_range", ("body", "a")),
        (b'{"a": -Infinity}', "number_out_of_range", ("body", "a")),
        (b'{"a": [1, 1e400]}', "number_out_of_range", ("body", "a", 1)),
        (b'{"a": 9223372036854775808}', "number_out_of_range", ("body", "a")),
        (b'{"a": -9223372036854775809}', "number_out_of_range", ("body", "a")),
        (b'{"a": 1' + b"0" * 5000 + b"}", "number_out_of_range", ("body", "a")),
        (b'{"a": "\\u0000"}', "string_nul", ("body", "a")),
        (b'{"a": {"\\u0000": 1}}', "string_nul", ("body", "a")),
        (b'{"a": "x\\udc00"}', "string_unicode", ("body", "a")),
        (b'{"\\ud800": 1}', "string_unicode", ("body",)),
    ],
)
def test_what_cannot_be_stored_is_named_by_its_field(raw: bytes, kind: str, loc: tuple[Any, ...]) -> None:
    """NaN, infinities, integers beyond 64 bits, NUL and lone surrogates are 422 with the place they stand in."""
    assert fault_of(raw) == (kind, loc)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": 9223372036854775807, "b": -9223372036854775808}',
        b'{"a": "1234567890123456789012345"}',
        b'{"a": "\\ud83d\\ude00", "b": 1e308}',
        b"[" * 64 + b"]" * 64,
        b'{"a": "' + b"[" * 500 + b'"}',
    ],
)
def test_what_can_be_stored_passes(raw: bytes) -> None:
    """The bounds themselves, surrogate pairs, long digits in text and brackets in text are no fault."""
    assert fault_of(raw) is None


def test_depth_65_is_refused_and_64_is_not() -> None:
    """A submission is at most 64 deep."""
    assert fault_of(b"[" * 64 + b"]" * 64) is None
    found = fault_of(b"[" * 65 + b"]" * 65)
    assert found is not None
    assert found[0] == "json_too_deep"


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"nonsense", b'{"a": 1,}', b'"\xed\xa0\x80"', b"\xff", b"[" * 1500, b"[" * 100_000]
)
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    """Broken JSON, bad UTF-8 and endless nesting end in 422, never in an exception nobody expects."""
    with pytest.raises(Invalid) as refused:
        parse_strict(raw)
    assert refused.value.faults[0].type in {"json_invalid", "json_too_deep"}


def test_the_refusal_does_not_hold_what_was_sent() -> None:
    """No input is echoed: neither a value nor a key that cannot be written."""
    document = parse_strict(b'{"secret-key\\u0000": "secret \\u0000 value"}')
    fault = first_fault(document.value, ("body",))
    assert fault is not None
    assert "secret" not in repr(fault)


@pytest.mark.parametrize("part", [b"[]", b"{}", b'{"a":"["}', b"1", b'"a"'])
def test_body_with_too_many_values_is_refused_before_it_is_parsed(part: bytes) -> None:
    """A few bytes of each become a hundred in memory."""
    with pytest.raises(TooLarge):
        parse_strict(b"[" + b",".join([part] * (MAX_VALUES + 1)) + b"]")


def test_brackets_within_texts_are_no_lists() -> None:
    """A prompt with code in it, however long and however escaped."""
    text = '[{"a": "\\\\"}' * MAX_VALUES
    assert parse_strict(json.dumps({"prompt": text}).encode()).value == {"prompt": text}


def test_no_body_takes_longer_to_be_counted_than_its_size_says() -> None:
    """Quotes that never close, between brackets: looked through once, then refused as no JSON."""
    with pytest.raises(Invalid):
        parse_strict(b"[" * (MAX_VALUES // 2) + b'"' + b'\\"[' * 1_000_000)
