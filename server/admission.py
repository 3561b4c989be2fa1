"""How many connections a server takes; the others wait in the kernel's backlog, where nobody is reset or answered."""

import asyncio
import os
import socket
import time
from asyncio.base_events import Server as Listener
from collections.abc import Callable

from uvicorn.server import ServerState

from runtime import metrics
from runtime.logs import log

BACKLOG = 2048
_QUIET_SECONDS = 60.0  # at the bound it pauses up to ten times a second: that is one line


class Admission(ServerState):
    """What a server's connections share; it stops accepting when they are `most`, and goes on when some have ended.

    uvloop cannot pause a listener: it is closed, and another one made on a copy of its socket. The backlog lives with
    the socket, which is open all the while, so nobody in it is lost. Who shares the socket (a successor, other
    processes) accepts as ever: what waits is nobody's yet.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._listeners: list[Listener] = []
        self._sockets: list[socket.socket] = []
        self._paused = False
        self._said = -_QUIET_SECONDS

    def mind(self, listeners: list[Listener]) -> None:
        """Look after these from now on: the list is the server's own, which closes at its end what is in it."""
        self._listeners = listeners
        self._sockets = [
            socket.socket(fileno=os.dup(one.fileno())) for listener in listeners for one in listener.sockets
        ]
        self.count()

    def count(self) -> None:
        """Stop accepting if that was the last one there is room for: uvloop accepts no other before this is called."""
        if self._paused or not self._sockets or len(self.connections) < self._most:
            return
        self._paused = True
        self._close()
        metrics.ACCEPTING_PAUSED.inc()
        if time.monotonic() - self._said >= _QUIET_SECONDS:
            self._said = time.monotonic()
            log("coordinator.web").warning("full, surplus connections wait", connections=len(self.connections))

    async def accept_again(self, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        """Go on accepting if there is room; without a descriptor to do it with, at another time."""
        if not self._paused or len(self.connections) >= self._most:
            return
        made: list[Listener] = []
        loop = asyncio.get_running_loop()
        for one in self._sockets:
            try:
                made.append(await loop.create_server(protocol, sock=one.dup(), backlog=BACKLOG))
            except OSError:
                for listener in made:
                    listener.close()
                return
        self._listeners[:] = made
        self._paused = False

    def end(self) -> None:
        """Accept nothing more, ever; the sockets are left to whoever else has them."""
        self._close()
        for one in self._sockets:
            one.close()
        self._sockets.clear()
        self._paused = False

    def _close(self) -> None:
        for listener in self._listeners:
            listener.close()
