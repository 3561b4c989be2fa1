"""Connection to Postgres that is lost at the worst moment: the COMMIT happened, and its answer never arrives."""

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from tests.support.tcp_server import listening_in_thread

CHUNK_BYTES = 65_536
# Simple queries, as psycopg sends them: type, length, text and its end.
BEGIN = re.compile(rb"Q.{4}BEGIN", re.DOTALL)
COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
ROLLBACK = b"Q\x00\x00\x00\x0dROLLBACK\x00"
# Ends of a statement with parameters, and of an answer after which no transaction is open.
SYNC = b"S\x00\x00\x00\x04"
IDLE = b"Z\x00\x00\x00\x05I"


@dataclass
class _Loss:
    """Number of answers to lose of transactions whose statements hold ``marker``."""

    marker: bytes
    left: int


@dataclass
class PostgresProxy:
    """Proxy between a process and Postgres. ``url`` is its address for the process; ``lost`` counts lost answers.

    A statement outside a transaction commits itself: its answer is lost like that of a COMMIT. The text of its
    statements identifies a transaction: the process needs `prepare_statements=False`.
    """

    host: str
    port: int
    url: str = ""
    lost: int = 0
    _losses: list[_Loss] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _away: bool = False
    _leave_at: int | None = None
    _connections: set["_Connection"] = field(default_factory=set)

    def lose(self, marker: str, times: int = 1) -> None:
        """Lose the answer of the COMMIT of the next so many transactions with this text in a statement."""
        with self._lock:
            self._losses.append(_Loss(marker.encode(), times))

    def lose_no_more(self) -> None:
        """Deliver all answers that were not lost by now."""
        with self._lock:
            self._losses.clear()

    def leave_after(self, lost: int) -> None:
        """Refuse connections to Postgres after so many lost answers, until `come_back`."""
        self._leave_at = lost

    def cut(self) -> None:
        """Cut all connections at once; Postgres goes on with the statements that it has got."""
        for one in list(self._connections):
            one.loop.call_soon_threadsafe(one.cut)

    def leave(self) -> None:
        """Cut all connections and refuse others, until `come_back`."""
        self._away = True
        self.cut()

    def come_back(self) -> None:
        self._leave_at, self._away = None, False

    def _look(self) -> None:
        if self._leave_at is not None and self.lost >= self._leave_at:
            self._away = True
            for one in list(self._connections):
                one.cut()

    def note_loss(self) -> None:
        self.lost += 1
        self._look()

    def _wants(self, statements: bytes) -> bool:
        with self._lock:
            for loss in self._losses:
                if loss.left > 0 and loss.marker in statements:
                    loss.left -= 1
                    return True
            return False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._away:
                return
            server_reader, server_writer = await asyncio.open_connection(self.host, self.port)
            one = _Connection(self, reader, writer, server_reader, server_writer)
            self._connections.add(one)
            try:
                await one.carry()
            finally:
                self._connections.discard(one)
                server_writer.close()
        except OSError:
            pass
        finally:
            writer.close()


class _Connection:
    def __init__(
        self,
        proxy: PostgresProxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._server_reader, self._server_writer = server_reader, server_writer
        self._doomed = False
        self.loop = asyncio.get_running_loop()

    async def carry(self) -> None:
        """Pass bytes both ways until one side ends."""
        ways = [asyncio.create_task(self._to_server()), asyncio.create_task(self._to_client())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # The test is over: swallow the cancellation, which would be printed.
            pass
        finally:
            for way in ways:
                way.cancel()

    def cut(self) -> None:
        """Cut it, called in the loop's thread."""
        self._writer.transport.abort()
        self._server_writer.transport.abort()

    async def _to_server(self) -> None:
        statements = b""
        try:
            while chunk := await self._reader.read(CHUNK_BYTES):
                statements += chunk
                alone = statements.endswith(SYNC) and not BEGIN.search(statements)
                if alone or statements.endswith(COMMIT):
                    # Decide before the end of the transaction is sent: the next answer is its own.
                    self._doomed = self._proxy._wants(statements)
                    statements = b""
                elif statements.endswith(ROLLBACK):
                    statements = b""
                self._server_writer.write(chunk)
                await self._server_writer.drain()
        except ConnectionError:
            pass

    async def _to_client(self) -> None:
        answer = b""
        try:
            while chunk := await self._server_reader.read(CHUNK_BYTES):
                if not self._doomed:
                    self._writer.write(chunk)
                    await self._writer.drain()
                    continue
                answer += chunk
                if IDLE in answer:
                    self._writer.transport.abort()
                    self._proxy.note_loss()
                    return
        except ConnectionError:
            pass


@contextmanager
def postgres_proxy(url: str) -> Iterator[PostgresProxy]:
    """Start a proxy before the Postgres of this URL, in a thread of its own."""
    parts = urlsplit(url)
    proxy = PostgresProxy(parts.hostname or "127.0.0.1", parts.port or 5432)
    user_info, at, _ = parts.netloc.rpartition("@")
    with listening_in_thread(proxy.serve) as address:
        # Refuse TLS, so that statements can be read.
        proxy.url = urlunsplit(parts._replace(netloc=f"{user_info}{at}{address}", query="sslmode=disable"))
        yield proxy
