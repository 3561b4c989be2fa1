"""Check that submissions which no database could store are refused with the field's name and never echoed."""

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
def test_unstorable_value_is_refused_with_its_field(raw: bytes, kind: str, loc: tuple[Any, ...]) -> None:
    """Refuse NaN, infinities, integers beyond 64 bits, NUL and lone surrogates with 422."""
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
def test_storable_values_pass(raw: bytes) -> None:
    """Accept the bounds themselves, surrogate pairs, long digits in text and brackets in text."""
    assert fault_of(raw) is None


def test_depth_65_is_refused_and_64_is_not() -> None:
    assert fault_of(b"[" * 64 + b"]" * 64) is None
    found = fault_of(b"[" * 65 + b"]" * 65)
    assert found is not None
    assert found[0] == "json_too_deep"


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"nonsense", b'{"a": 1,}', b'"\xed\xa0\x80"', b"\xff", b"[" * 1500, b"[" * 100_000]
)
def test_invalid_json_is_refused(raw: bytes) -> None:
    """Answer broken JSON, bad UTF-8 and endless nesting with 422."""
    with pytest.raises(Invalid) as refused:
        parse_strict(raw)
    assert refused.value.faults[0].type in {"json_invalid", "json_too_deep"}


def test_refusal_echoes_no_input() -> None:
    """Echo neither a value nor a key that cannot be written."""
    document = parse_strict(b'{"secret-key\\u0000": "secret \\u0000 value"}')
    fault = first_fault(document.value, ("body",))
    assert fault is not None
    assert "secret" not in repr(fault)


@pytest.mark.parametrize("part", [b"[]", b"{}", b'{"a":"["}', b"1", b'"a"'])
def test_body_with_too_many_values_is_refused_before_it_is_parsed(part: bytes) -> None:
    """A few bytes of each value become a hundred in memory."""
    with pytest.raises(TooLarge):
        parse_strict(b"[" + b",".join([part] * (MAX_VALUES + 1)) + b"]")


def test_brackets_inside_strings_are_not_counted() -> None:
    text = '[{"a": "\\\\"}' * MAX_VALUES
    assert parse_strict(json.dumps({"prompt": text}).encode()).value == {"prompt": text}


def test_counting_values_takes_time_linear_in_body_size() -> None:
    """Read quotes that never close, between brackets, once; then refuse the body as invalid JSON."""
    with pytest.raises(Invalid):
        parse_strict(b"[" * (MAX_VALUES // 2) + b'"' + b'\\"[' * 1_000_000)
