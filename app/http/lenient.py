import json
import math
import re
from functools import partial
from typing import Any, Final

import orjson
from starlette.requests import Request

from app.http.bodies import MAX_DEPTH, Fault, Invalid, TooLarge, read_body
from app.http.body_limits import BodyParser
from app.http.json_scan import TooManyValues, Unbalanced, contains, shortened, survey

# orjson makes floats of integers beyond 64 bits; the standard parser keeps them.
_LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")
_LONG_NUMBER_BYTES: Final = 19
_LIST: Final = re.compile(rb"\s*\[")
MAX_DIGITS: Final = 4000
# Bound memory: a few bytes of each value become a hundred. A field that exceeds it is kept as text.
MAX_VALUES: Final = 500_000
# Values outside of fields' values: a thousand events or reports have a tenth of this.
MAX_VALUES_ABOVE: Final = 100_000


async def lenient_object(request: Request, parser: BodyParser, limit: int, *, fields_below: int = 0) -> dict[str, Any]:
    """Return the body of a report; its contents are never refused. Raises Invalid only when it is no JSON object."""
    return await parser.run(partial(parse_object, fields_below=fields_below), await read_body(request, limit))


def parse_object(raw: bytes, *, fields_below: int = 0) -> dict[str, Any]:
    value = parse_lenient(raw, fields_below=fields_below)
    if not isinstance(value, dict):
        raise Invalid([Fault("dict_type", ("body",), "Should be an object")])
    return value


def parse_lenient(raw: bytes, *, extra_depth: int = 0, fields_below: int = 0) -> Any:
    """Return the body of an event or report; what orjson refuses is read by the standard parser.

    NaN and infinities become null, bad UTF-8 U+FFFD. Lists and objects nested deeper than 64 (+ ``extra_depth``, for
    the list around several events) become their text; so does the value of a field, ``fields_below`` levels below the
    outermost object or list of objects, that brings the body above MAX_VALUES. Raises Invalid when the body is no JSON,
    and TooLarge for more than MAX_VALUES_ABOVE values outside of such fields.
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
    """Return JSON: ASCII if its text has lone surrogates, null for numbers that are not finite."""
    try:
        return orjson.dumps(value)
    except (orjson.JSONEncodeError, TypeError, UnicodeEncodeError):
        return json.dumps(value, separators=(",", ":"), default=str).encode()


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _integer(digits: str) -> int | str:
    # Longer ones stay text: Python refuses to parse them by default, and no reader of ours could use them.
    return int(digits) if len(digits) <= MAX_DIGITS else digits
