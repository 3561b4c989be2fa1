from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.auth.authenticate import credential_of
from app.auth.caller_limits import caller_of
from app.http.lenient import encode
from app.http.query import LARGEST_LIMIT

# Rows of a page; its bytes are bounded by the verbs.
PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Page:
    items: Sequence[bytes]
    next_cursor: str | None
    extra: Mapping[str, Any]


Fetch = Callable[[str | None, int], Awaitable[Page]]
Make = Callable[[str | None, float], Awaitable[Page]]


async def answer_list(
    request: Request, name: str, fetch: Fetch, limit: int | None, cursor: str | None, most: float = inf
) -> Response:
    """Answer with up to ``most`` items when neither limit nor cursor was given, else with one page.

    The first page is read before the answer begins, so that an error can still be answered. Each further page is read
    after the client has taken the one before: a client that does not read holds one page.
    """
    web, caller = request.scope["app"].state.web, caller_of(credential_of(request))
    total = limit if limit is not None else (LARGEST_LIMIT if cursor is not None else most)

    async def make(after: str | None, left: float) -> Page:
        page: Page = await web.lists.make(caller, lambda: fetch(after, int(min(PAGE, left))))
        return page

    places = await web.lists.enter(caller) if total > PAGE else AsyncExitStack()
    async with places:
        first = await make(cursor, total)
        return ListResponse(_stream(name, make, first, total), places.pop_all())


class ListResponse(StreamingResponse):
    def __init__(self, parts: AsyncIterator[bytes], places: AsyncExitStack) -> None:
        super().__init__(parts, media_type="application/json")
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._places:
            await super().__call__(scope, receive, send)


async def _stream(name: str, make: Make, page: Page, left: float) -> AsyncIterator[bytes]:
    extra = dict(page.extra)
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
