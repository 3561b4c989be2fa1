"""HTTP server: bounds of a request head, and what happens between SIGTERM and the end."""

import asyncio
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn

from server.http_server import HEAD_BYTES, BoundedHttp, Server
from testkit.waiting import eventually


@dataclass
class Drain:
    """Drain that records how it was started."""

    seconds: float = 0.3
    started: list[float | None] = field(default_factory=list)
    handed_over: bool = False

    def start(self, seconds: float | None = None, *, handed_over: bool = False) -> None:
        self.started.append(seconds)
        self.handed_over = handed_over


@dataclass
class Serving:
    port: int
    server: Server
    drain: Drain
    thread: threading.Thread
    ready: list[bool]
    # Socket as the supervisor has it, open even after the server has closed its own.
    listener: socket.socket

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, data: bytes) -> bytes:
        """Return the answer to these bytes, up to the server's close."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(data)
            answer = b""
            while chunk := connection.recv(65_536):
                answer += chunk
            return answer


async def echo(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[dict[str, Any]], Any]) -> None:
    """Answer 200, and `/slow` only after the server has begun to close."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/slow":
        await asyncio.to_thread(closing.wait, 10)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})


closing = threading.Event()


@pytest.fixture
def serving() -> Iterator[Serving]:
    with started() as serving:
        eventually(lambda: serving.server.started, what="the server")
        yield serving


@contextmanager
def started(is_ready: Callable[[], bool] = lambda: True, *, successor: bool = False) -> Iterator[Serving]:
    """Run a server in a thread until the end of the block."""
    closing.clear()
    listener = socket.create_server(("127.0.0.1", 0))
    ready: list[bool] = []
    drain = Drain()
    config = uvicorn.Config(
        echo,
        http=BoundedHttp,
        loop="uvloop",
        ws="none",
        log_config=None,
        timeout_graceful_shutdown=5,
    )
    server = Server(config, drain=drain, is_ready=is_ready, tell_ready=lambda: ready.append(True), successor=successor)
    held = listener.dup()
    held.settimeout(30)
    thread = threading.Thread(target=server.run, args=([listener],))
    port = listener.getsockname()[1]
    thread.start()
    try:
        yield Serving(port, server, drain, thread, ready, held)
    finally:
        closing.set()
        server.handle_exit(signal.SIGINT, None)
        server.should_exit = True
        thread.join(30)
        held.close()
        listener.close()


def test_readiness_is_printed_once(serving: Serving) -> None:
    """Print one line, for which the supervisor waits."""
    eventually(lambda: serving.ready, what="ready")
    httpx.get(serving.url)
    assert serving.ready == [True]


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"a" * 1000) for i in range(80)) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 2_000_000,
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["many headers", "a header without end", "a long target"],
)
def test_head_beyond_bound_is_refused_with_431(serving: Serving, head: bytes) -> None:
    """Bound the memory that the parser keeps for a connection."""
    try:
        answer = serving.send(head)
    except ConnectionError:  # closed while we were still sending
        return
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"content-type: application/json" in answer
    assert "detail" in json.loads(answer.partition(b"\r\n\r\n")[2])


def test_head_below_bound_is_served(serving: Serving) -> None:
    """Fit cookies and tokens of honest clients, on every request of a connection."""
    with httpx.Client() as client:
        for _ in range(3):
            assert client.get(serving.url, headers={"X-Large": "a" * (HEAD_BYTES - 2000)}).text == "served"


def test_invalid_http_is_refused_in_error_shape(serving: Serving) -> None:
    """Answer `{"detail": ...}`."""
    answer = serving.send(b"NONSENSE\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert "detail" in json.loads(answer.partition(b"\r\n\r\n")[2])


def test_sigterm_drains_before_listener_closes(serving: Serving) -> None:
    """Tell the app at once and serve it for the whole drain; then refuse new connections."""
    serving.listener.close()
    serving.drain.seconds = 2
    # Make the client before the drain: loading certificates takes long on a busy machine.
    with httpx.Client() as client:
        serving.server.handle_exit(signal.SIGTERM, None)
        assert serving.drain.started == [2]
        assert client.get(serving.url).text == "served"
    assert not serving.server.should_exit
    eventually(lambda: not serving.thread.is_alive(), what="the end")
    with pytest.raises(httpx.ConnectError):
        httpx.get(serving.url)


def test_sigint_skips_drain(serving: Serving) -> None:
    """End parked polls now, on Ctrl-C or the end of `up`."""
    serving.drain.seconds = 60
    serving.server.handle_exit(signal.SIGINT, None)
    assert serving.drain.started == [0]
    eventually(lambda: not serving.thread.is_alive(), what="the end")


def test_second_signal_cuts_drain_short(serving: Serving) -> None:
    serving.drain.seconds = 60
    serving.server.handle_exit(signal.SIGTERM, None)
    serving.server.handle_exit(signal.SIGTERM, None)
    assert serving.drain.started == [60]
    eventually(lambda: not serving.thread.is_alive(), what="the end")


def test_request_in_progress_is_finished_before_end(serving: Serving) -> None:
    """Close the listener, and still send the answer."""
    answers: list[str] = []
    client = threading.Thread(target=lambda: answers.append(httpx.get(f"{serving.url}/slow", timeout=30).text))
    client.start()
    eventually(lambda: serving.server.server_state.tasks, what="the request")
    serving.server.handle_exit(signal.SIGINT, None)
    eventually(lambda: not serving.server.servers[0].is_serving(), what="the closed listener")
    closing.set()
    client.join(30)
    assert answers == ["served"]


def test_retired_server_accepts_nothing_and_finishes_its_requests(serving: Serving) -> None:
    """Leave new connections to the successor; refuse none, and exit after the last client."""
    serving.drain.seconds = 60
    answers: list[str] = []
    client = threading.Thread(target=lambda: answers.append(httpx.get(f"{serving.url}/slow", timeout=30).text))
    client.start()
    eventually(lambda: serving.server.server_state.tasks, what="the request")
    serving.server.hand_over(signal.SIGUSR1, None)
    eventually(lambda: serving.drain.started, what="the drain")
    assert serving.drain.started == [60]
    assert serving.drain.handed_over
    with socket.create_connection(("127.0.0.1", serving.port)):
        accepted, _ = serving.listener.accept()
        accepted.close()
    assert serving.thread.is_alive()
    closing.set()
    client.join(30)
    assert answers == ["served"]
    eventually(lambda: not serving.thread.is_alive(), what="the end")


def test_successor_accepts_nothing_before_it_is_ready() -> None:
    """Leave connections to the former process until then."""
    ready = threading.Event()
    with started(ready.is_set, successor=True) as serving:
        with socket.create_connection(("127.0.0.1", serving.port)):
            accepted, _ = serving.listener.accept()
            accepted.close()
        assert not serving.server.started
        ready.set()
        assert httpx.get(serving.url, timeout=30).text == "served"
        eventually(lambda: serving.ready, what="ready")


def test_successor_ended_before_ready_has_served_nothing() -> None:
    """Keep the socket open, since it belongs to the former process."""
    with started(lambda: False, successor=True) as serving:
        serving.server.handle_exit(signal.SIGINT, None)
        eventually(lambda: not serving.thread.is_alive(), what="the end")
        with socket.create_connection(("127.0.0.1", serving.port)):
            accepted, _ = serving.listener.accept()
            accepted.close()
