"""Detect that a client disconnected while its request is held; this works behind pure ASGI middleware only."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from starlette.requests import Request
from starlette.types import Scope

# ASGI extension of server/http_server.py with the callables `is_closing`, `cut_after` and `send`.
CONNECTION: Final = "coordinator.connection"


def connection_of(scope: Scope) -> Mapping[str, Callable[..., Any]]:
    connection: Mapping[str, Callable[..., Any]] = (scope.get("extensions") or {}).get(CONNECTION, {})
    return connection


class Client:
    """Client of a held request. ``gone`` is done soon after it disconnected."""

    def __init__(self, request: Request) -> None:
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_closing: Callable[[], bool] = connection_of(request.scope).get("is_closing", self.gone.done)

    def leave(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)

    def has_gone(self) -> bool:
        """Return whether the server knows at this moment that the client disconnected.

        ``gone`` is set some turns of the loop later, and the server drops silently what is sent in between.
        """
        return self.gone.done() or self._is_closing()


@asynccontextmanager
async def hang_up(request: Request) -> AsyncIterator[Client]:
    """Yield the client of a request and watch its connection. The request's body must have been read."""
    client = Client(request)
    watch = asyncio.create_task(_watch(request, client.gone))
    try:
        yield client
    finally:
        watch.cancel()


async def _watch(request: Request, gone: asyncio.Future[None]) -> None:
    message = await request.receive()
    while message["type"] != "http.disconnect":
        message = await request.receive()
    if not gone.done():
        gone.set_result(None)
