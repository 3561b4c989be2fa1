"""Proxy before a web process that fails on purpose: cut after so many bytes, silent, away, or answering by itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.support.tcp_server import listening

CHUNK_BYTES = 65_536


@dataclass
class WebProxy:
    """Proxy between a client and a web process, in the test's own loop. ``url`` is its address for the client.

    ``cut_after``: bytes of the server after which a new connection is cut (None: never); each is cut behind the first
    ``cut_behind`` in it.
    """

    target: str
    cut_after: Callable[[], int | None] = lambda: None
    url: str = ""
    cut_behind: bytes = b""
    heads: list[str] = field(default_factory=list)
    # All bytes that have passed to clients.
    said: bytes = b""
    cuts: int = 0
    open: int = 0
    opened: int = 0
    # Close all that is opened.
    away: bool = False
    # Answer instead of the server's, as a load balancer gives.
    answer: bytes = b""
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _ways: set["asyncio.Task[None]"] = field(default_factory=set)

    def freeze(self) -> None:
        """Pass nothing any more; leave the connections open."""
        self.flowing.clear()

    def cut(self) -> None:
        """Cut all connections now."""
        for way in list(self._ways):
            way.cancel()

    def last_event_ids(self) -> list[str]:
        """Return the cursors that clients have sent, one a request; empty for none."""
        lines = [
            [line for line in head.splitlines() if line.lower().startswith("last-event-id:")] for head in self.heads
        ]
        return [found[0].partition(":")[2].strip() if found else "" for found in lines]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.opened += 1
        try:
            if self.away:
                return
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode())
            if self.answer:
                writer.write(self.answer)
                await writer.drain()
            else:
                await self._carry(head, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _carry(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass the request there and the answer back, until either side ends or it is cut."""
        parts = urlsplit(self.target)
        server_reader, server_writer = await asyncio.open_connection(parts.hostname, parts.port)
        server_writer.write(head)
        back = asyncio.create_task(self._back(server_reader, writer, self.cut_after()))
        gone = asyncio.create_task(reader.read())
        self._ways.add(back)
        try:
            await asyncio.wait((back, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ways.discard(back)
            back.cancel()
            gone.cancel()
            await asyncio.gather(back, gone, return_exceptions=True)
            server_writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None) -> None:
        answer = b""
        while (left is None or left > 0) and not (self.cut_behind and answer.endswith(self.cut_behind)):
            most = 1 if self.cut_behind else CHUNK_BYTES
            chunk = await reader.read(most if left is None else min(left, most))
            if not chunk:
                return
            await self.flowing.wait()
            answer += chunk
            self.said += chunk
            writer.write(chunk)
            await writer.drain()
            left = None if left is None else left - len(chunk)
        self.cuts += 1
        if self.cuts % 2:
            # Send a reset: bytes on their way may be lost too.
            writer.transport.abort()


@asynccontextmanager
async def web_proxy(target: str, cut_after: Callable[[], int | None] = lambda: None) -> AsyncIterator[WebProxy]:
    """Start a proxy before the web process at this address."""
    proxy = WebProxy(target, cut_after)
    proxy.flowing.set()
    async with listening(proxy.serve) as address:
        proxy.url = f"http://{address}"
        yield proxy
