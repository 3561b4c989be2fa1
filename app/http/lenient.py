"""Bodies of events and reports, which are never refused for their content: whatever was meant is kept (PROTOCOL)."""

import json
import math
import re
from typing import Any, Final

import orjson

from app.http.bodies import MAX_DEPTH, Fault, Invalid, TooLarge
from app.http.json_scan import TooManyValues, Unbalanced, contains, shortened, survey

# orjson makes floats of integers beyond 64 bits; the standard parser keeps them.
_LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")
_LONG_NUMBER_BYTES: Final = 19
_LIST: Final = re.compile(rb"\s*\[")
MAX_DIGITS: Final = 4000
# A few bytes of each become a hundred in memory. A field with which a body would have more is kept as text.
MAX_VALUES: Final = 500_000
# A thousand events or reports have a tenth of them outside of the values of their fields.
MAX_VALUES_ABOVE: Final = 100_000


def parse_lenient(raw: bytes, *, extra_depth: int = 0, fields_below: int = 0) -> Any:
    """Return the body of an event or report; what orjson refuses is read by the standard parser.

    NaN and infinities become null, bad UTF-8 U+FFFD. Lists and objects nested deeper than 64 (+ ``extra_depth``, for
    the list around several events) become the text they were; so does the value of a field, ``fields_below`` levels
    below the outermost object or list of objects, with which the body would have more than MAX_VALUES. Raises Invalid
    for what is no JSON at all, and TooLarge for more than MAX_VALUES_ABOVE outside of such fields.
    """
    deepest = MAX_DEPTH + extra_depth
    found = survey(raw, deepest, MAX_VALUES)
    if found.is_deep or found.values > MAX_VALUES:
        raw = _shortened(raw, deepest, fields_below + (3 if _LIST.match(raw) else 2))
    if not contains(raw, _LONG_NUMBER, _LONG_NUMBER_BYTES):
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass
    text = raw.decode("utf-8", errors="replace")
    try:
        return json.loads(text, strict=False, parse_constant=lambda _: None, parse_float=_finite, parse_int=_integer)
    except json.JSONDecodeError as bad:
        raise _no_json(bad.pos) from bad
    except RecursionError as bad:
        raise _no_json(0) from bad


def _shortened(raw: bytes, deepest: int, field_depth: int) -> bytes:
    try:
        return shortened(raw, deepest=deepest, field_depth=field_depth, most=MAX_VALUES, most_above=MAX_VALUES_ABOVE)
    except Unbalanced as bad:
        raise _no_json(len(raw)) from bad
    except TooManyValues as bad:
        raise TooLarge(f"Request body has more than {MAX_VALUES_ABOVE} values outside of its fields") from bad


def _no_json(place: int) -> Invalid:
    return Invalid([Fault("json_invalid", ("body", place), "JSON decode error")])


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
