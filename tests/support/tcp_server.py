"""TCP servers of tests: a handler on a free port, in the test's own loop or in a thread of its own."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from anyio.from_thread import start_blocking_portal

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve each connection; yield the address, and cancel what is left at the end."""
    connections: set[asyncio.Task[None] | None] = set()

    async def serve_until_cancelled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(task := asyncio.current_task())
        with suppress(asyncio.CancelledError):
            await serve(reader, writer)
        connections.discard(task)

    server = await asyncio.start_server(serve_until_cancelled, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        left = [task for task in connections if task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


@contextmanager
def listening_in_thread(serve: Serve, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(listening(serve, tls)) as address:
        yield address
