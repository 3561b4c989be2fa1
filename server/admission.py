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
_LOG_PAUSE_SECONDS = 60.0  # at the bound it pauses up to ten times a second: log one of those a minute


class Admission(ServerState):
    """State shared by a server's connections; accepting pauses at `most` of them, until some have ended.

    uvloop cannot pause a listener: it is closed, and another one made on a copy of its socket. The backlog belongs to
    the socket, which stays open, so that no waiting connection is lost. Other processes with that socket, such as a
    successor, go on accepting.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._listeners: list[Listener] = []
        self._sockets: list[socket.socket] = []
        self._paused = False
        self._logged_at = -_LOG_PAUSE_SECONDS

    def manage(self, listeners: list[Listener]) -> None:
        """Manage these listeners from now on; the list is the server's own, which closes at its end what the list
        holds.
        """
        self._listeners = listeners
        self._sockets = [
            socket.socket(fileno=os.dup(sock.fileno())) for listener in listeners for sock in listener.sockets
        ]
        self.count()

    def count(self) -> None:
        """Stop accepting at the bound: uvloop accepts no other connection before this is called."""
        if self._paused or not self._sockets or len(self.connections) < self._most:
            return
        self._paused = True
        self._close()
        metrics.ACCEPTING_PAUSED.inc()
        if time.monotonic() - self._logged_at >= _LOG_PAUSE_SECONDS:
            self._logged_at = time.monotonic()
            log("coordinator.web").warning(
                "connection limit reached, further ones wait", connections=len(self.connections)
            )

    async def accept_again(self, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        if not self._paused or len(self.connections) >= self._most:
            return
        made: list[Listener] = []
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            try:
                made.append(await loop.create_server(protocol, sock=sock.dup(), backlog=BACKLOG))
            except OSError:
                for listener in made:
                    listener.close()
                return
        self._listeners[:] = made
        self._paused = False

    def end(self) -> None:
        """Stop accepting for good; other processes keep their copies of the sockets."""
        self._close()
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        self._paused = False

    def _close(self) -> None:
        for listener in self._listeners:
            listener.close()
