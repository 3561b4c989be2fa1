"""Bodies of events and reports, which are never refused for their content: whatever was meant is kept (PROTOCOL)."""

import json
import math
import re
from typing import Any, Final

import orjson

from app.bodies import MAX_DEPTH, Fault, Invalid, nested_deeper

_MARKS: Final = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
# orjson makes floats of integers beyond 64 bits; the standard parser keeps them.
_LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")
MAX_DIGITS: Final = 4000


def parse_lenient(raw: bytes, extra_depth: int = 0) -> Any:
    """Return the body of an event or report; what orjson refuses is read by the standard parser.

    NaN and infinities become null, bad UTF-8 U+FFFD, what is nested deeper than 64 (+ ``extra_depth``, for the list
    around several events) the text it was. Raises Invalid only for what is no JSON at all.
    """
    limit = MAX_DEPTH + extra_depth
    deep = nested_deeper(raw, limit)
    if not deep and not _LONG_NUMBER.search(raw):
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass
    text = raw.decode("utf-8", errors="replace")
    if deep:
        text = _flattened(text, limit)
    try:
        return json.loads(text, strict=False, parse_constant=lambda _: None, parse_float=_finite, parse_int=_integer)
    except json.JSONDecodeError as bad:
        raise Invalid([Fault("json_invalid", ("body", bad.pos), "JSON decode error")]) from bad


def encode(value: Any) -> bytes:
    """Return JSON; in ASCII when the text in it has lone surrogates, with null where a number is not finite."""
    try:
        return orjson.dumps(value)
    except (orjson.JSONEncodeError, TypeError, UnicodeEncodeError):
        return json.dumps(value, separators=(",", ":"), default=str).encode()


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _integer(digits: str) -> int | str:
    # Python refuses to read more by default, and no reader of ours could use it.
    return int(digits) if len(digits) <= MAX_DIGITS else digits


def _flattened(text: str, limit: int) -> str:
    """Return the JSON text with every array and object deeper than ``limit`` replaced by its own text as a string."""
    parts: list[str] = []
    depth = kept = start = 0
    for mark in _MARKS.finditer(text):
        match mark.group()[0]:
            case "[" | "{":
                depth += 1
                if depth == limit + 1:
                    start = mark.start()
                    parts.append(text[kept:start])
            case "]" | "}":
                if depth == limit + 1:
                    kept = mark.end()
                    parts.append(json.dumps(text[start:kept]))
                depth -= 1
    parts.append(text[kept:])
    return "".join(parts)
