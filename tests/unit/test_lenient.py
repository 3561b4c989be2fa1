"""Events and reports: never refused for their content."""

import json

import orjson
import pytest

from app.bodies import Invalid
from app.lenient import encode, parse_lenient


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
def test_what_orjson_refuses_is_read_all_the_same(raw: bytes, kept: object) -> None:
    """NaN and infinities become null, bad UTF-8 U+FFFD; huge integers and control characters stay."""
    assert parse_lenient(raw) == kept


def test_lone_surrogates_survive_in_ascii() -> None:
    """Frames with surrogates are written in ASCII, and read back the same."""
    encoded = encode(parse_lenient(b'{"a": "\\ud800x", "b": "\\u00e9"}'))
    assert encoded.isascii()
    assert json.loads(encoded) == {"a": "\ud800x", "b": "é"}


def test_what_is_deeper_than_64_is_kept_as_text() -> None:
    """The 65th level and all below it become the text they were."""
    value = parse_lenient(b'{"a": ' + b"[" * 200 + b'"]"' + b"]" * 200 + b', "b": 2}')
    assert value["b"] == 2
    inner = value["a"]
    for _ in range(62):
        (inner,) = inner
    assert inner == ["[" * 137 + '"]"' + "]" * 137]
    orjson.loads(encode(value))


def test_depth_64_stays_as_it_is() -> None:
    """Nothing at or above the bound is touched."""
    raw = b'{"a":' + b"[" * 63 + b"]" * 63 + b"}"
    assert encode(parse_lenient(raw)) == raw


def test_nesting_without_end_is_no_danger() -> None:
    """A hundred thousand levels are text."""
    value = parse_lenient(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    orjson.loads(encode(value))


def test_only_what_is_no_json_is_refused() -> None:
    """There is nothing to keep in a body that is no JSON."""
    with pytest.raises(Invalid):
        parse_lenient(b"nonsense")
