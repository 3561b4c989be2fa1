"""Detect that a client disconnected while its request is held."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from starlette.requests import Request
from starlette.types import Scope

# ASGI extension of server/http_server.py with the callables `is_closing`, `on_lost` and `cut_after`.
CONNECTION: Final = "coordinator.connection"
# Key in the scope of a request that is held: the time to its answer is no latency of ours.
HELD: Final = "coordinator.held"


def connection_of(scope: Scope) -> Mapping[str, Callable[..., Any]]:
    connection: Mapping[str, Callable[..., Any]] = scope["extensions"][CONNECTION]
    return connection


class Client:
    """Client of a held request. ``gone`` is done soon after it disconnected."""

    def __init__(self, request: Request) -> None:
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_closing: Callable[[], bool] = connection_of(request.scope)["is_closing"]

    def leave(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)

    def has_gone(self) -> bool:
        """Return whether the server knows at this moment that the client disconnected.

        ``gone`` may be set some turns of the loop later, and the server drops silently what is sent in between.
        """
        return self.gone.done() or self._is_closing()


@contextmanager
def hang_up(request: Request) -> Iterator[Client]:
    """Yield the client of a request and watch its connection. The request's body must have been read."""
    client = Client(request)
    request.scope[HELD] = True
    on_lost = connection_of(request.scope)["on_lost"]
    on_lost(client.leave)
    try:
        yield client
    finally:
        on_lost(None)
