"""Learning that a client has left while its request is held; only pure ASGI middleware lets this through."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from starlette.requests import Request
from starlette.types import Scope

# The server's ASGI extension (server/http_server.py): `is_closing`, `cut_after` and `send`, callables.
CONNECTION: Final = "coordinator.connection"


def connection_of(scope: Scope) -> Mapping[str, Callable[..., Any]]:
    """Return what the server lets be done with the connection of a request; nothing where it is not ours."""
    connection: Mapping[str, Callable[..., Any]] = (scope.get("extensions") or {}).get(CONNECTION, {})
    return connection


class Client:
    """Who waits for an answer. ``gone`` is done soon after it has hung up."""

    def __init__(self, request: Request) -> None:
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_closing: Callable[[], bool] = connection_of(request.scope).get("is_closing", self.gone.done)

    def leave(self) -> None:
        """End what is held for it as if it had hung up: nothing is handed out any more."""
        if not self.gone.done():
            self.gone.set_result(None)

    def has_gone(self) -> bool:
        """Whether the server knows at this very moment that the client has hung up.

        ``gone`` alone comes some turns of the loop late, and the server drops without a word what is sent in between.
        """
        return self.gone.done() or self._is_closing()


@asynccontextmanager
async def hang_up(request: Request) -> AsyncIterator[Client]:
    """The client of a request, watched. The request's body must have been read."""
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
