"""Check that scans of JSON text are exact, and linear in time and memory for any text."""

import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.http import json_scan, lenient
from app.http.bodies import Invalid, TooLarge, parse_strict
from app.http.json_scan import TooManyValues, Unbalanced, shortened, survey
from app.http.lenient import parse_lenient

TEXTS = st.text(alphabet='[]{}"\\,:aé', max_size=5)
NESTED: st.SearchStrategy[Any] = st.recursive(
    TEXTS | st.integers(), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4)
)
EVERYTHING = 10**9


@pytest.fixture(params=[3, 64, json_scan.CHUNK])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Cut texts at every kind of position."""
    size: int = request.param
    monkeypatch.setattr(json_scan, "CHUNK", size)
    return size


def depth_of(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)


def values_of(value: Any) -> int:
    """Return the number of lists, objects and commas between members."""
    if not isinstance(value, dict | list):
        return 0
    inner = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(0, len(inner) - 1) + sum(map(values_of, inner))


def written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


@pytest.mark.usefixtures("chunk")
@given(NESTED, st.integers(0, 8))
def test_survey_counts_values_and_depth_outside_strings(value: Any, deepest: int) -> None:
    """Include brackets, quotes and escapes inside strings, and cuts anywhere."""
    raw = written(value)
    found = survey(raw, deepest, most=-1)
    assert found.values > -1
    found = survey(raw, deepest, most=EVERYTHING)
    assert found.is_deep is (depth_of(value) > deepest)
    assert found.values >= values_of(value)
    assert survey(raw, 0, most=0).values >= min(1, values_of(value))


def cut(value: Any, depth: int) -> Any:
    """Return the value with everything deeper replaced by its text."""
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        return written(value).decode()
    if isinstance(value, list):
        return [cut(inner, depth - 1) for inner in value]
    return {name: cut(inner, depth - 1) for name, inner in value.items()}


@pytest.mark.usefixtures("chunk")
@given(st.dictionaries(TEXTS, NESTED, max_size=4), st.integers(2, 6))
def test_lists_and_objects_below_the_bound_become_text(value: Any, deepest: int) -> None:
    short = shortened(written(value), deepest=deepest, field_depth=2, most=EVERYTHING, most_above=EVERYTHING)
    assert json.loads(short) == cut(value, deepest)


@pytest.mark.usefixtures("chunk")
@given(st.dictionaries(TEXTS, NESTED, max_size=6), st.integers(0, 12))
def test_fields_beyond_allowed_values_become_text(value: dict[str, Any], most: int) -> None:
    """Count a field only if it is kept."""
    left, expected = most, {}
    for name, inner in value.items():
        fits = values_of(inner) <= left
        left -= values_of(inner) if fits else 0
        expected[name] = inner if fits else written(inner).decode()
    short = shortened(written(value), deepest=100, field_depth=2, most=most, most_above=EVERYTHING)
    assert json.loads(short) == expected


@pytest.mark.usefixtures("chunk")
@given(st.binary(max_size=60) | st.text('[]{}",\\a', max_size=60).map(str.encode), st.integers(1, 5))
def test_no_text_breaks_scan(raw: bytes, deepest: int) -> None:
    """Every text ends in a result or in the documented refusal."""
    survey(raw, deepest, most=3)
    with suppress(TooManyValues, Unbalanced):
        shortened(raw, deepest=deepest, field_depth=2, most=3, most_above=3)
    parsed(raw)


def event(content: bytes) -> bytes:
    return b'{"event_type":"message","content":' + content + b',"z":1}'


UNITS: dict[str, Callable[[int], bytes]] = {
    "opened": lambda n: b"[{" * n,
    "closed": lambda n: b"]}" * n,
    "unended text": lambda n: b'{"a":["' + b'[\\"' * n,
    "quotes": lambda n: event(b"[" + b'"",' * n + b"0]"),
    "escapes": lambda n: event(b'"' + b"\\\\" * n + b'"'),
    "brackets in text": lambda n: event(b'"' + b"[{]}," * n + b'"'),
    "deep": lambda n: event(b"[" * n + b"]" * n),
    "lists": lambda n: event(b"[" + b"[]," * n + b"0]"),
    "deep lists": lambda n: event(b"[" + (b"[" * 70 + b"]" * 70 + b",") * (n // 70) + b"0]"),
    "numbers": lambda n: event(b"[" + b"1.5," * n + b"0]"),
    "objects": lambda n: b"[" + b"{}," * n + b"{}]",
    "fields": lambda n: b"{" + b'"a":[],' * n + b'"a":1}',
    "digits": lambda n: event(b'"' + b"123456789012345678 " * n + b'"'),
}


@contextmanager
def counted_lines() -> Iterator[list[int]]:
    """Count the executed lines of the scanning modules: a measure of time that other processes do not disturb."""
    ran = [0]
    ours = {json_scan.__file__, lenient.__file__}

    def line(_frame: Any, what: str, _value: Any) -> Any:
        ran[0] += what == "line"
        return line

    def call(frame: Any, _what: str, _value: Any) -> Any:
        return line if frame.f_code.co_filename in ours else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        yield ran
    finally:
        sys.settrace(before)


def parsed(raw: bytes) -> None:
    for parse in (parse_lenient, parse_strict):
        with suppress(Invalid, TooLarge):
            parse(raw)


@pytest.mark.parametrize("unit", UNITS)
def test_time_is_linear_in_size_of_hostile_body(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpreter steps per byte do not grow with the body; most bytes need none."""
    monkeypatch.setattr(lenient, "MAX_VALUES", 1000)
    monkeypatch.setattr(lenient, "MAX_VALUES_ABOVE", 1000)
    lines = []
    for size in (20_000, 80_000):
        raw = UNITS[unit](size)
        with counted_lines() as ran:
            parsed(raw)
        lines.append((ran[0], len(raw)))
    (few, short), (many, long) = lines
    assert many / long <= 1.5 * few / short + 0.01
    # Only pieces in which a field begins or becomes too large are read mark by mark.
    assert many <= 200 * (long // json_scan.CHUNK + 1) + 40 * json_scan.CHUNK


@pytest.mark.parametrize("unit", UNITS)
def test_memory_is_linear_in_size_of_hostile_body(unit: str) -> None:
    """The parser sets 12 bytes aside for each byte of a body; MAX_VALUES bounds the objects made of it."""
    raw = UNITS[unit](150_000)
    tracemalloc.start()
    try:
        parsed(raw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 15 * len(raw) + 200 * lenient.MAX_VALUES + 50 * json_scan.CHUNK


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\\", b",", b'"a":', b"1"]), min_size=1, max_size=12))
def test_memory_is_linear_for_any_repeated_pattern(pattern: list[bytes]) -> None:
    raw = event(b"[" + b"".join(pattern) * (50_000 // len(pattern)) + b"]")
    tracemalloc.start()
    try:
        parsed(raw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 15 * len(raw) + 200 * 100_000 + 50 * json_scan.CHUNK
