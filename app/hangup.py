"""Learning that a client has left while its request is held; only pure ASGI middleware lets this through."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request


@asynccontextmanager
async def hang_up(request: Request) -> AsyncIterator[asyncio.Future[None]]:
    """A future that is done when the client has hung up. The request's body must have been read."""
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    watch = asyncio.create_task(_watch(request, gone))
    try:
        yield gone
    finally:
        watch.cancel()


async def _watch(request: Request, gone: asyncio.Future[None]) -> None:
    message = await request.receive()
    while message["type"] != "http.disconnect":
        message = await request.receive()
    if not gone.done():
        gone.set_result(None)
