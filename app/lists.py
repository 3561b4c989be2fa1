"""Lists: page by page from Postgres into the answer, so that a long one needs no memory (PROTOCOL, Lists)."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import StreamingResponse

from app.bodies import Fault, Invalid
from app.lenient import encode

PAGE: Final = 500
LARGEST_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of a list, its items encoded; ``extra`` is said once, at the end, from the first page."""

    items: Sequence[bytes]
    next_cursor: str | None
    extra: Mapping[str, Any]


Fetch = Callable[[str | None, int], Awaitable[Page]]


def wanted(request: Request, cursor_name: str = "cursor") -> tuple[int | None, str | None]:
    """Return ``limit`` and cursor of the query, None where not given. Raises Invalid."""
    text = request.query_params.get("limit")
    limit = None if not text else whole(text, ("query", "limit"), 1, LARGEST_LIMIT)
    return limit, request.query_params.get(cursor_name) or None


def whole(text: str, loc: tuple[str, str], least: int, most: int) -> int:
    """Return a number of the query. Raises Invalid."""
    if text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= most:
        return int(text)
    raise Invalid([Fault("int_range", loc, f"Should be a whole number from {least} to {most}")])


def seconds(text: str, loc: tuple[str, str], most: float) -> float:
    """Return a time of the query, at most ``most`` seconds. Raises Invalid."""
    try:
        value = float(text) if len(text) <= 32 else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise Invalid([Fault("float_range", loc, f"Should be a number of seconds from 0 to {most:g}")])
    return value


def storable_query(text: str | None) -> str | None:
    """Return a text of the query as something Postgres can compare: NUL finds nothing, as it should."""
    return text.replace("\x00", "\ufffd") if text else None


async def answer_list(
    name: str, fetch: Fetch, limit: int | None, cursor: str | None, most: float = inf
) -> StreamingResponse:
    """Answer with everything up to ``most`` when neither limit nor cursor was given, else with one page.

    The first page is read before the answer begins, so that what is wrong can still be said.
    """
    total = limit if limit is not None else (LARGEST_LIMIT if cursor is not None else most)
    first = await fetch(cursor, int(min(PAGE, total)))
    return StreamingResponse(_stream(name, fetch, first, total), media_type="application/json")


async def _stream(name: str, fetch: Fetch, first: Page, total: float) -> AsyncIterator[bytes]:
    page, left = first, total
    opening = f'{{"{name}":['.encode()
    while True:
        left -= len(page.items)
        body = b",".join(page.items)
        yield opening + body
        if page.next_cursor is None or left <= 0 or not page.items:
            break
        opening = b","
        page = await fetch(page.next_cursor, int(min(PAGE, left)))
        if not page.items:
            opening = b""
    tail = dict(first.extra)
    if page.next_cursor is not None:
        tail["next_cursor"] = page.next_cursor
    closing = encode(tail)
    yield b"]}" if closing == b"{}" else b"]," + closing[1:]
