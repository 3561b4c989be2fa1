import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Final, Protocol, cast
from uuid import uuid4

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runtime.logs import log
from runtime.metrics import STREAM_CUTS
from server.admission import Admission

logger = log(__name__)

# Sent with every answer of ours: without it, a 404 comes from a proxy that does not reach us.
INSTANCE_HEADER: Final = "Coordinator-Instance"
HEAD_BYTES = 64 * 1024
# A head must be complete within these, and a body must bring this many bytes in each of these, or the sender is cut.
HEAD_SECONDS = 15.0
BODY_SECONDS = 15.0
SLOWEST_BODY_BYTES = 15 * 1024
# Cut a client that reads nothing of an answer for this long; streams set their own time (app/routes/feed.py).
STALLED_SECONDS = 60.0
# Keep idle connections longer than any balancer or client, so that they close them, never we under a request.
KEEP_ALIVE_SECONDS = 75
_LOOK_SECONDS = 0.02
_HURRIED_GRACE_SECONDS = 2  # for connections that do not end by themselves, without a drain


class Drainable(Protocol):
    seconds: float

    def start(self, seconds: float | None = None, *, handed_over: bool = False) -> None: ...


class HeadTooLarge(Exception):
    pass


class BoundedHttp(HttpToolsProtocol):
    """HTTP protocol that refuses heads beyond HEAD_BYTES with 431 and unfinished requests with 408, in our error shape;
    httptools and uvicorn have no such bounds.

    A request that arrives whole, as nearly all do, sets no timer.
    """

    head_seconds = HEAD_SECONDS
    body_seconds = BODY_SECONDS
    stalled_seconds = STALLED_SECONDS

    _head_bytes = 0
    _unfinished_bytes = 0
    _body_bytes = 0
    _reading_head = False
    _reading_body = False
    _begun = False
    _overdue: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _on_lost: Callable[[], None] | None = None
    _lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        if isinstance(self.server_state, Admission):
            self.server_state.count()
        # uvicorn starts this timer only after an answer: a connection that never sends anything would stay for ever.
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._overdue, self._stalled, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()
        self._overdue = self._stalled = None
        super().connection_lost(exc)
        self._lost = True
        if self._on_lost is not None:
            self._on_lost()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        # A single endless header never reaches on_header, so count what arrived before the head ended, too.
        if self._reading_head:
            self._unfinished_bytes += len(data)
            if self._unfinished_bytes > HEAD_BYTES:
                self._refuse(431, "The request's headers are too large.")
                return
        if self._reading_head or self._reading_body:
            if self._overdue is None:
                self._expect(self.body_seconds if self._reading_body else self.head_seconds)
            return
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        # Data that begins no request (blank lines, the rest of an answered one) stopped uvicorn's timer as well.
        if self.timeout_keep_alive_task is None and self._is_idle():
            self._wait_for_request()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.stalled_seconds, self._cut)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # Let the app ask the transport: by the time it is told of a disconnect, an answer may have been dropped
        # (app/lifecycle/hangup.py).
        connection: dict[object, object] = {
            "is_closing": self.transport.is_closing,
            "on_lost": self._call_when_lost,
            "cut_after": self._cut_after,
        }
        self.scope["extensions"] = {"coordinator.connection": connection}
        self._head_bytes = self._unfinished_bytes = 0
        self._reading_head = True
        if self._overdue is not None:
            # Timer of the request before this one.
            self._overdue.cancel()
            self._overdue = None

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._reading_head, self._reading_body, self._body_bytes = False, True, 0
        self._begun = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._reading_body = False
        super().on_message_complete()

    def _cut(self) -> None:
        logger.info("client cut, it reads nothing")
        STREAM_CUTS.labels("slow").inc()
        self.transport.abort()

    def _call_when_lost(self, callback: Callable[[], None] | None) -> None:
        """Call this when the connection is lost during the request that is being answered."""
        self._on_lost = callback
        if callback is None:
            return
        if self._lost:
            callback()
        # While reading is paused the end of the connection goes unnoticed.
        self.flow.resume_reading()

    def _cut_after(self, seconds: float) -> None:
        self.stalled_seconds = seconds

    def _wait_for_request(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _expect(self, seconds: float) -> None:
        self._overdue = self.loop.call_later(seconds, self._look_again, self._reading_body, self._body_bytes)

    def _look_again(self, was_body: bool, seen: int) -> None:  # noqa: FBT001 -- a callback takes its arguments by position
        self._overdue = None
        if self.transport.is_closing():
            return
        is_new = self._reading_body and not was_body
        # Bytes that wait because we paused reading are not missing.
        if is_new or (was_body and (self._body_bytes - seen >= SLOWEST_BODY_BYTES or self.flow.read_paused)):
            self._expect(self.body_seconds)
        elif self._may_answer():
            self._refuse(408, "The request did not come to its end in time.")
        else:
            self.transport.close()

    def _may_answer(self) -> bool:
        if self._reading_body:
            return not self.cycle.response_started
        return self._is_idle()

    def _is_idle(self) -> bool:
        return not self._begun or self.cycle.response_complete

    def _count(self, more: int) -> None:
        self._head_bytes += more
        if self._head_bytes > HEAD_BYTES:
            raise HeadTooLarge

    def send_400_response(self, msg: str) -> None:
        if self._head_bytes > HEAD_BYTES:
            self._refuse(431, "The request's headers are too large.")
        else:
            self._refuse(400, msg)

    def _refuse(self, status: int, detail: str) -> None:
        body = json.dumps({"detail": detail}).encode()
        reason = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}[status]
        head = (
            f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n"
        ).encode()
        own_headers = b"".join(name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers)
        self.transport.write(head + own_headers + b"\r\n" + body)
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn server that lets the app drain while it goes on serving, and closes its listeners only then.

    A ``successor`` shares its sockets with a server that still serves them, and accepts nothing before it is ready; on
    ``hand_over`` the other one accepts nothing more and drains, and ends as soon as its last connection has closed.
    Beyond ``most_connections`` none is accepted before others have ended. Every answer, also those that the app never
    sees, carries ``instance`` (default: a new id).
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain: Drainable,
        is_ready: Callable[[], bool],
        tell_ready: Callable[[], None],
        successor: bool = False,
        most_connections: int = sys.maxsize,
        instance: str = "",
    ) -> None:
        super().__init__(config)
        config.headers.append((INSTANCE_HEADER, instance or f"web_{uuid4().hex}"))
        self._admission = self.server_state = Admission(most_connections)
        self._drain = drain
        self._is_ready = is_ready
        self._tell_ready = tell_ready
        self._successor = successor
        self._told = False
        self._succeeded = False
        self._end_at: float | None = None

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        """Handle signals: SIGTERM drains, SIGINT ends parked requests at once; a second one closes now, a third one
        cuts.

        uvicorn would raise remembered signals again at its end; ours must end in exit code 0, so none is remembered.
        """
        if sig == signal.SIGINT:
            self.config.timeout_graceful_shutdown = _HURRIED_GRACE_SECONDS
        if self.should_exit:
            self.force_exit = True
        elif self._end_at is not None:
            self.should_exit = True
        else:
            seconds = 0.0 if sig == signal.SIGINT else self._drain.seconds
            self._drain.start(seconds)
            self._end_at = time.monotonic() + seconds

    def hand_over(self, _sig: int, _frame: FrameType | None) -> None:
        self._succeeded = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve: a successor once it is ready, or never if it is told to end before."""
        if self._successor and sockets is not None:
            begin = self.lifespan.startup

            async def begin_and_wait() -> None:
                await begin()
                while True:
                    if self._end_at is not None:
                        # uvicorn must not listen on sockets that another process serves.
                        sockets.clear()
                    if self._is_ready() or self.lifespan.should_exit or not sockets:
                        return
                    await asyncio.sleep(_LOOK_SECONDS)

            self.lifespan.startup = begin_and_wait
        # uvicorn sets these on its first tick, which may come after the first connection is accepted.
        self.server_state.default_headers = list(self.config.encoded_headers)
        await super().startup(sockets)
        self._admission.manage(self.servers)

    async def on_tick(self, counter: int) -> bool:
        if not self._told and self._is_ready():
            self._told = True
            self._tell_ready()
        if self._succeeded and self._end_at is None:
            self._admission.end()
            self._drain.start(self._drain.seconds, handed_over=True)
            self._end_at = time.monotonic() + self._drain.seconds
        elif self._succeeded and not self.server_state.connections:
            self.should_exit = True
        if self._end_at is not None and time.monotonic() >= self._end_at:
            self.should_exit = True
        await self._admission.accept_again(self._protocol)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._admission.end()
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        make = cast("type[BoundedHttp]", self.config.http_protocol_class)
        return make(self.config, self._admission, self.lifespan.state)
