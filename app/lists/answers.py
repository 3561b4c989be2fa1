from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from math import inf
from typing import Final

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.auth.authenticate import credential_of
from app.auth.caller_limits import caller_of
from app.http.lenient import encode
from app.http.query import CURSOR_IN_BODY, LARGEST_LIMIT, Parameter

# Rows of a page; its bytes are bounded by the verbs.
PAGE: Final = 200
FEED_CURSOR_HEADER: Final = "Feed-Cursor"


@dataclass(frozen=True, slots=True)
class Page:
    items: Sequence[bytes]
    next_cursor: str | None
    feed_cursor: str | None = None


Fetch = Callable[[str | None, int], Awaitable[Page]]
Make = Callable[[str | None, float], Awaitable[Page]]


def feed_cursor_headers(feed_cursor: str | None) -> dict[str, str]:
    return {} if feed_cursor is None else {FEED_CURSOR_HEADER: feed_cursor}


def has_cursor_in_body(query: QueryParams, own: Iterable[Parameter]) -> bool:
    """Return whether the body of a list has ``feed_cursor``, too: if the request asks for it, or has one of the
    parameters of ``own``, which clients of the coordinator before this one do not know.
    """
    asked = CURSOR_IN_BODY.of(query)
    return any(parameter.name in query for parameter in own) if asked is None else asked


async def answer_list(
    request: Request,
    name: str,
    fetch: Fetch,
    limit: int | None,
    cursor: str | None,
    most: float = inf,
    *,
    own: Iterable[Parameter] = (),
) -> Response:
    """Answer with up to ``most`` items when neither limit nor cursor was given, else with one page.

    The feed cursor of the first page is a header, and for requests with one of the parameters ``own`` in the body.

    The first page is read before the answer begins, so that an error can still be answered. Each further page is read
    after the client has taken the one before: a client that does not read holds one page.
    """
    web, caller = request.scope["app"].state.web, caller_of(credential_of(request))
    in_body = has_cursor_in_body(request.query_params, own)
    total = limit if limit is not None else (LARGEST_LIMIT if cursor is not None else most)

    async def make(after: str | None, left: float) -> Page:
        page: Page = await web.lists.make(caller, lambda: fetch(after, int(min(PAGE, left))))
        return page

    places = await web.lists.enter(caller) if total > PAGE else AsyncExitStack()
    async with places:
        first = await make(cursor, total)
        extra = {"feed_cursor": first.feed_cursor} if in_body and first.feed_cursor is not None else {}
        headers = feed_cursor_headers(first.feed_cursor)
        return ListResponse(_stream(name, make, first, total, extra), headers, places.pop_all())


class ListResponse(StreamingResponse):
    def __init__(self, parts: AsyncIterator[bytes], headers: dict[str, str], places: AsyncExitStack) -> None:
        super().__init__(parts, headers=headers, media_type="application/json")
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._places:
            await super().__call__(scope, receive, send)


async def _stream(name: str, make: Make, page: Page, left: float, extra: dict[str, str]) -> AsyncIterator[bytes]:
    opening = f'{{"{name}":['.encode()
    while True:
        left -= len(page.items)
        next_cursor, was_last = page.next_cursor, not page.items or page.next_cursor is None or left <= 0
        body = opening + b",".join(page.items)
        del page
        yield body
        del body
        if was_last:
            break
        # The server takes this part after the client has taken the ones before; until then nothing more is read.
        yield b""
        page = await make(next_cursor, left)
        opening = b"," if page.items else b""
    if next_cursor is not None:
        extra["next_cursor"] = next_cursor
    closing = encode(extra)
    yield b"]}" if closing == b"{}" else b"]," + closing[1:]
