import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from app.http.body_limits import UNCOUNTED_BYTES, UPLOAD, BodyParser, Upload
from app.http.headers import header_of
from app.http.json_scan import contains, survey

MAX_DEPTH: Final = 64
# Bound what a body becomes in memory: two bytes of lists, objects and commas take a hundred, 16 MiB of them a GB.
MAX_VALUES: Final = 200_000
MAX_KEY_SHOWN: Final = 64
SMALLEST_INT: Final = -(2**63)
LARGEST_INT: Final = 2**63 - 1

# Most bodies match none of these and need no walk: escapes of NUL and surrogates, 19 digits, raw NUL.
_SUSPECT: Final = re.compile(rb"\\u0000|\\u[dD][89a-fA-F]|[0-9]{19}")
_SUSPECT_BYTES: Final = 19
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

Loc = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class Fault(NamedTuple):
    type: str
    loc: Loc
    msg: str


class Invalid(Exception):
    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("invalid request")
        self.faults = faults


class TooLarge(Exception):
    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Gone(Exception):
    """The client disconnected before its request was read; the answer reaches no client."""


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body, at most ``limit`` bytes.

    Raises TooLarge (before reading, if the length is announced), Gone, and Unavailable when the bodies that the process
    holds left no space for it in time.
    """
    upload: Upload = request.scope[UPLOAD]
    announced = header_of(request.scope, b"content-length") or ""
    if announced.isdigit() and len(announced) < 20 and int(announced) > limit:
        raise TooLarge(f"Request body is larger than {limit} bytes")
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Gone
        chunk, more = message["body"], message["more_body"]
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"Request body is larger than {limit} bytes")
        if size > UNCOUNTED_BYTES:
            await upload.take(size - UNCOUNTED_BYTES - upload.size)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def strict_body(request: Request, parser: BodyParser, limit: int, *, instead_of_none: bytes = b"") -> Any:
    return await parser.run(_parse_faultless, await read_body(request, limit) or instead_of_none)


def checked(model: type[Model], value: Any, at: Loc = ("body",)) -> Model:
    """Return the model made of a parsed body. Raises Invalid with place and type of each fault (at most 100), never the
    input.
    """
    try:
        return model.model_validate(value)
    except ValidationError as refused:
        faults = refused.errors(include_url=False, include_context=False, include_input=False)
        raise Invalid([Fault(fault["type"], (*at, *fault["loc"]), fault["msg"]) for fault in faults[:100]]) from None


class Document(NamedTuple):
    """Parsed body. If ``suspect``, walk its parts with ``first_fault`` before using them."""

    value: Any
    suspect: bool


class _Unusable:
    """Placeholder in a parsed body for a number that no submission may hold."""


_UNUSABLE: Final = _Unusable()


def parse_strict(raw: bytes) -> Document:
    """Return the body of a submission. Raises Invalid when it is no JSON or no UTF-8, and TooLarge for more than
    MAX_VALUES values.
    """
    found = survey(raw, MAX_DEPTH, MAX_VALUES)
    if found.values > MAX_VALUES:
        raise TooLarge(f"Request body has more than {MAX_VALUES} lists, objects and members of them")
    suspect = found.is_deep or contains(raw, _SUSPECT, _SUSPECT_BYTES)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as refused:
        return Document(_parse_slowly(raw, refused), suspect=True)
    # orjson turns integers beyond 64 bits into floats; the standard parser keeps them, so that they can be refused.
    return Document(_parse_slowly(raw, None) if suspect else value, suspect)


def _parse_faultless(raw: bytes) -> Any:
    document = parse_strict(raw)
    fault = first_fault(document.value, ("body",)) if document.suspect else None
    if fault is not None:
        raise Invalid([fault])
    return document.value


def _parse_slowly(raw: bytes, refused: orjson.JSONDecodeError | None) -> Any:
    try:
        text = raw.decode()
    except UnicodeDecodeError as bad:
        raise Invalid([Fault("json_invalid", ("body", bad.start), "Body is not valid UTF-8")]) from bad
    try:
        return json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=lambda _: _UNUSABLE)
    except RecursionError as deep:
        raise Invalid([_too_deep(("body",))]) from deep
    except json.JSONDecodeError as bad:
        position = refused.pos if refused else bad.pos
        raise Invalid([Fault("json_invalid", ("body", position), "JSON decode error")]) from bad


def _integer(digits: str) -> int | _Unusable:
    if len(digits) > 20:
        return _UNUSABLE
    number = int(digits)
    return number if SMALLEST_INT <= number <= LARGEST_INT else _UNUSABLE


def _float(digits: str) -> float | _Unusable:
    number = float(digits)
    return number if abs(number) != float("inf") else _UNUSABLE


def first_fault(value: Any, loc: Loc) -> Fault | None:
    return next(_faults(value, loc), None)


def _faults(root: Any, at: Loc) -> Iterator[Fault]:
    pending: list[tuple[Any, Loc, int]] = [(root, at, 1)]
    while pending:
        value, loc, depth = pending.pop()
        match value:
            case str():
                yield from _text_faults(value, loc)
            case _Unusable():
                yield Fault("number_out_of_range", loc, "Number should be finite and an integer within 64 bits")
            case dict() | list() if depth > MAX_DEPTH:
                yield _too_deep(loc)
            case dict():
                for key, inner in reversed(value.items()):
                    yield from _key_faults(key, loc)
                    pending.append((inner, (*loc, key[:MAX_KEY_SHOWN]), depth + 1))
            case list():
                pending.extend((inner, (*loc, place), depth + 1) for place, inner in reversed(list(enumerate(value))))


def _text_faults(text: str, loc: Loc) -> Iterator[Fault]:
    if "\x00" in text:
        yield Fault("string_nul", loc, "Text should not contain the NUL character")
    elif _SURROGATE.search(text):
        yield Fault("string_unicode", loc, "Text should not contain lone surrogates")


def _key_faults(key: str, loc: Loc) -> Iterator[Fault]:
    # Name only the place of the key: the key itself must not stand in an answer.
    for fault in _text_faults(key, loc):
        yield fault._replace(msg=fault.msg.replace("Text", "Keys"))


def _too_deep(loc: Loc) -> Fault:
    return Fault("json_too_deep", loc[:8], f"Should not be nested deeper than {MAX_DEPTH}")
