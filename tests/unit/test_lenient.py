"""Check that events and reports are never refused for their content."""

import json

import orjson
import pytest

from app.http.bodies import Invalid, TooLarge
from app.http.lenient import MAX_VALUES, encode, parse_lenient


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (b'{"a": NaN, "b": Infinity, "c": -Infinity, "d": 1e999}', {"a": None, "b": None, "c": None, "d": None}),
        (b'{"a": 123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        (b'{"a": "\xff!"}', {"a": "\ufffd!"}),
        (b'{"a": "\\u0000"}', {"a": "\x00"}),
        (b'{"a": "tab\tin text"}', {"a": "tab\tin text"}),
    ],
)
def test_json_that_orjson_refuses_is_read(raw: bytes, kept: object) -> None:
    """Turn NaN and infinities into null and bad UTF-8 into U+FFFD; keep huge integers and control characters."""
    assert parse_lenient(raw) == kept


def test_lone_surrogates_survive_in_ascii() -> None:
    """Write frames with surrogates in ASCII, and read them back unchanged."""
    encoded = encode(parse_lenient(b'{"a": "\\ud800x", "b": "\\u00e9"}'))
    assert encoded.isascii()
    assert json.loads(encoded) == {"a": "\ud800x", "b": "é"}


def test_levels_beyond_64_are_kept_as_text() -> None:
    value = parse_lenient(b'{"a": ' + b"[" * 200 + b'"]"' + b"]" * 200 + b', "b": 2}')
    assert value["b"] == 2
    inner = value["a"]
    for _ in range(62):
        (inner,) = inner
    assert inner == ["[" * 137 + '"]"' + "]" * 137]
    orjson.loads(encode(value))


def test_depth_64_is_unchanged() -> None:
    raw = b'{"a":' + b"[" * 63 + b"]" * 63 + b"}"
    assert encode(parse_lenient(raw)) == raw


def test_endless_nesting_becomes_text() -> None:
    """Nest 100,000 levels."""
    value = parse_lenient(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    orjson.loads(encode(value))


@pytest.mark.parametrize("raw", [b"nonsense", b"", b"[" * 1500, b"]" * 1500, b'{"a": ' + b"[" * 1500, b"[{" * 500_000])
def test_only_invalid_json_is_refused(raw: bytes) -> None:
    with pytest.raises(Invalid):
        parse_lenient(raw)


def test_field_with_too_many_values_is_kept_as_text() -> None:
    """Keep the fields before and after it unchanged."""
    many = b"[" + b"[]," * MAX_VALUES + b'"]"]'
    value = parse_lenient(b'{"a": {"b": [1, 2]}, "many": ' + many + b', "z": [{"c": "["}]}')
    assert value == {"a": {"b": [1, 2]}, "many": many.decode(), "z": [{"c": "["}]}


def test_only_events_of_list_that_have_too_many_values_change() -> None:
    """Bound each event by the values that are left."""
    many = b'{"x": [' + b"0," * (MAX_VALUES - 50) + b"0]}"
    events = parse_lenient(b'[{"a": %b}, {"a": %b}, {"a": [1]}]' % (many, many), extra_depth=1)
    assert events[0] == {"a": {"x": [0] * (MAX_VALUES - 49)}}
    assert events[1] == {"a": many.decode()}
    assert events[2] == {"a": [1]}


def test_report_of_many_keeps_each_report() -> None:
    """Fields of reports in a list stand two levels below those of a single report."""
    many = b"[" + b"0," * MAX_VALUES + b"0]"
    value = parse_lenient(b'{"runner_id": "r", "reports": [{"error": %b}, {"error": {"a": 1}}]}' % many, fields_below=2)
    assert value == {"runner_id": "r", "reports": [{"error": many.decode()}, {"error": {"a": 1}}]}


@pytest.mark.parametrize("part", [b'"a":[]', b'"a":1'])
def test_object_with_too_many_fields_is_too_large(part: bytes) -> None:
    """No sender of events or reports uses so many names."""
    with pytest.raises(TooLarge):
        parse_lenient(b"{" + b",".join([part] * (MAX_VALUES + 2)) + b"}")
