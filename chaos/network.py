import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psutil
import uvloop

from runtime.processes import family

# Target processes of a fault: looked up again and again, since they are replaced.
Targets = Callable[[], list[psutil.Process]]


class _End(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None
        # Input that came before the other end was connected.
        self.early = b""
        self._silent = False
        self._full = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.other is not None and self.other.early:
            transport.write(self.other.early)

    def data_received(self, data: bytes) -> None:
        if self.other is None or self.other.transport is None:
            self.early += data
        elif not self.other.transport.is_closing():
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.hold(full=True)

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.hold(full=False)

    def connection_lost(self, _error: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def hold(self, *, full: bool | None = None, silent: bool | None = None) -> None:
        self._full = self._full if full is None else full
        self._silent = self._silent if silent is None else silent
        if self.transport is not None and not self.transport.is_closing():
            (self.transport.pause_reading if self._full or self._silent else self.transport.resume_reading)()


@dataclass(eq=False)
class _Pair:
    client: _End
    server: _End
    client_port: int

    def cut(self) -> None:
        for end in (self.client, self.server):
            if end.transport is not None:
                end.transport.abort()

    def hold(self, *, silent: bool) -> None:
        for end in (self.client, self.server):
            end.hold(silent=silent)


@dataclass(eq=False)
class _Trouble:
    targets: Targets | None
    silent: bool
    held: set[_Pair] = field(default_factory=set)

    def ports(self) -> set[int] | None:
        if self.targets is None:
            return None
        found: set[int] = set()
        for process in family(self.targets()):
            with suppress(psutil.Error):
                found |= {connection.laddr[1] for connection in process.net_connections("tcp")}
        return found


@dataclass
class Network:
    url: str
    _host: str
    _port: int
    _loop: asyncio.AbstractEventLoop
    _pairs: set[_Pair] = field(default_factory=set)
    _troubles: list[_Trouble] = field(default_factory=list)

    @contextmanager
    def cut(self, targets: Targets | None) -> Iterator[None]:
        with self._trouble(_Trouble(targets, silent=False)):
            yield

    @contextmanager
    def silence(self, targets: Targets | None) -> Iterator[None]:
        """Pass nothing while both ends stay open, for the length of the block; then reset those connections."""
        with self._trouble(_Trouble(targets, silent=True)):
            yield

    @contextmanager
    def _trouble(self, trouble: _Trouble) -> Iterator[None]:
        self._do(lambda: self._begin(trouble))
        try:
            yield
        finally:
            self._do(lambda: self._end(trouble))

    def _do(self, what: Callable[[], None]) -> None:
        async def do() -> None:
            what()

        asyncio.run_coroutine_threadsafe(do(), self._loop).result(10)

    def _begin(self, trouble: _Trouble) -> None:
        self._troubles.append(trouble)
        self._apply(trouble, trouble.ports(), self._pairs)

    def _end(self, trouble: _Trouble) -> None:
        self._troubles.remove(trouble)
        for pair in trouble.held:
            pair.cut()

    def _apply(self, trouble: _Trouble, ports: set[int] | None, pairs: set[_Pair]) -> None:
        for pair in list(pairs):
            if ports is not None and pair.client_port not in ports:
                continue
            if trouble.silent:
                pair.hold(silent=True)
                trouble.held.add(pair)
            else:
                pair.cut()

    def accept(self) -> asyncio.Protocol:
        client = _Accepted(self)
        client.other = _End()
        client.other.other = client
        return client

    async def join(self, client: _End, server: _End, client_port: int) -> None:
        pair = _Pair(client, server, client_port)
        try:
            await self._loop.create_connection(lambda: server, self._host, self._port)
        except OSError:
            pair.cut()
            return
        if client.transport is None or client.transport.is_closing():
            pair.cut()
            return
        self._pairs.add(pair)
        for trouble in self._troubles:
            self._apply(trouble, trouble.ports(), {pair})

    def forget(self, client: _End) -> None:
        self._pairs = {pair for pair in self._pairs if pair.client is not client}


class _Accepted(_End):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = network
        self._joining: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        port = transport.get_extra_info("peername")[1]
        if self.other is not None:
            self._joining = asyncio.ensure_future(self._network.join(self, self.other, port))

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._network.forget(self)


@contextmanager
def network(url: str) -> Iterator[Network]:
    parts = urlsplit(url)
    loop = uvloop.new_event_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    user_info, at, _ = parts.netloc.rpartition("@")
    local_url = parts._replace(netloc=f"{user_info}{at}127.0.0.1:{listener.getsockname()[1]}").geturl()
    way = Network(local_url, parts.hostname or "127.0.0.1", parts.port or 0, loop)
    server = loop.run_until_complete(loop.create_server(way.accept, sock=listener))
    thread = threading.Thread(target=loop.run_forever, name=f"network to {parts.port}", daemon=True)
    thread.start()
    try:
        yield way
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        server.close()
