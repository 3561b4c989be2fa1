"""Check the values of a file's columns: each function returns what we store, or raises RowFault."""

import json
import math
import re
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any, Final, TypeVar

import orjson

from models.claims.matching import AUTONOMOUS, PROPERTIES, Demands
from models.transfer.faults import Reason, RowFault, shown

# Longest text of a submission (app/schemas).
LONGEST_TEXT: Final = 1024
LONGEST_TYPE: Final = 64
_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
# Depth up to which orjson reads.
_DEEPEST: Final = 1024
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_BY_DEFAULT: Final = Demands(executor_type=AUTONOMOUS)

T = TypeVar("T")


def identifier(value: object, where: str) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value) or value in {".", ".."}:
        raise RowFault(Reason.BAD_ID, f"{where}: {shown(value)}")
    return value


def text(value: object, where: str, longest: int | None = LONGEST_TEXT) -> str | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        raise RowFault(Reason.NOT_TEXT, f"{where}: {shown(value)}")
    found = str(value)
    if longest is not None and len(found) > longest:
        raise RowFault(Reason.TOO_LONG, f"{where}: {len(found)} characters, at most {longest}")
    if "\0" in found:
        raise RowFault(Reason.NUL, f"{where}: {shown(found)}")
    _encoded(found, where)
    return found


def moment(value: object, where: str) -> datetime | None:
    """Return a time; one without an offset is UTC."""
    if value is None:
        return None
    found = parsed_moment(value)
    if found is None:
        raise RowFault(Reason.BAD_TIME, f"{where}: {shown(value)}")
    return found


def parsed_moment(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def needed(value: T | None, where: str) -> T:
    if value is None:
        raise RowFault(Reason.MISSING_VALUE, where)
    return value


def json_object(value: object, where: str, most_bytes: int | None = None) -> str | None:
    """Return the text of an object as the API accepts it in a submission: without NUL and lone surrogates."""
    if value is None:
        return None
    raw = _encoded(_json_source(value, where), where)
    if most_bytes is not None and len(raw) > most_bytes:
        raise RowFault(Reason.TOO_LARGE, f"{where}: {len(raw)} bytes, at most {most_bytes}")
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise _bad_json(raw, where) from None
    if not isinstance(found, dict):
        raise RowFault(Reason.BAD_JSON, f"{where} is no object: {shown(value)}")
    if b"\\u0000" in raw and _NUL.search(orjson.dumps(found)):
        raise RowFault(Reason.NUL, f"{where}: {shown(value)}")
    return raw.decode()


def json_fragment(value: object, where: str) -> orjson.Fragment | None:
    """Return any JSON to be put into an event's frame as it is; NUL and surrogates stay the escapes that they are."""
    if value is None:
        return None
    source = _json_source(value, where)
    try:
        orjson.loads(source)
    except orjson.JSONDecodeError:
        # orjson refuses escapes of lone surrogates, which events may hold.
        raw = _encoded(source, where)
        try:
            _read_json(source)
        except (ValueError, RecursionError):
            raise _bad_json(raw, where) from None
        if _depth(source) > _DEEPEST:
            raise RowFault(Reason.BAD_JSON, f"{where}: nested deeper than {_DEEPEST}") from None
    return orjson.Fragment(source)


def demands(value: object, where: str) -> Demands:
    source = json_object(value, where)
    given: dict[str, Any] = {} if source is None else orjson.loads(source)
    named = {name: given.get(name) or None for name in PROPERTIES}
    tags = given.get("tags") or []
    texts = [found for found in named.values() if found is not None]
    if not isinstance(tags, list) or not all(isinstance(found, str) for found in (*texts, *tags)):
        raise RowFault(Reason.BAD_DEMANDS, f"{where}: {shown(source)}")
    return Demands(**named, tags=tuple(sorted(set(tags)))).merged(_BY_DEFAULT)


def _json_source(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise RowFault(Reason.NOT_TEXT if isinstance(value, bytes) else Reason.BAD_JSON, f"{where}: {shown(value)}")
    return value


def _encoded(found: str, where: str) -> bytes:
    try:
        return found.encode()
    except UnicodeEncodeError:
        raise RowFault(Reason.NOT_UTF8, f"{where}: {shown(found)}") from None


def _bad_json(raw: bytes, where: str) -> RowFault:
    """Return the fault of a text that orjson refuses: it is no JSON, or escapes half of a surrogate pair."""
    reason = Reason.BAD_JSON
    if _SURROGATE.search(raw) is not None:
        try:
            _read_json(raw)
            reason = Reason.NOT_UTF8
        except (ValueError, RecursionError):
            pass
    return RowFault(reason, f"{where}: {shown(raw.decode())}")


def _read_json(source: str | bytes) -> None:
    """Read JSON as orjson does, but for escapes of lone surrogates. Raises ValueError or RecursionError."""
    json.loads(source, parse_constant=_no_constant, parse_float=_finite)


def _depth(source: str) -> int:
    steps = (1 if mark in "[{" else -1 for mark in _STRING.sub("", source) if mark in "[]{}")
    return max(accumulate(steps), default=0)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _finite(number: str) -> float:
    found = float(number)
    if not math.isfinite(found):
        raise ValueError(number)
    return found
