"""Clients that send nothing, send slowly or do not read: they are cut in time, and others notice nothing."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import pytest
import uvicorn

from app.main import create_app
from runtime.processes import allow_connections
from runtime.settings import Settings
from server.http_server import BoundedHttp, Server
from testkit.waiting import eventually
from tests.support.web import PROMPT, WebClient

IDLE = 1000
SLOW = 100
HEAD = b"POST /runs HTTP/1.1\r\nHost: localhost\r\n"


class Hasty(BoundedHttp):
    """Server protocol with short time limits."""

    head_seconds = 0.5
    body_seconds = 0.5
    stalled_seconds = 0.5


@contextmanager
def serving(settings: Settings, http: type[BoundedHttp], keep_alive: int = 75) -> Iterator[WebClient]:
    app = create_app(settings)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        app, http=http, loop="uvloop", ws="none", lifespan="on", log_config=None, timeout_keep_alive=keep_alive
    )
    server = Server(config, drain=app.state.drain, is_ready=app.state.is_ready, tell_ready=lambda: None)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    client = WebClient(f"http://127.0.0.1:{listener.getsockname()[1]}")
    try:
        eventually(app.state.is_ready, what="readiness")
        yield client
    finally:
        client.close()
        server.should_exit = True
        thread.join(30)
        listener.close()


@contextmanager
def connected(client: WebClient) -> Iterator[socket.socket]:
    host, _, port = client.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        yield connection


def answer(connection: socket.socket) -> bytes:
    """Return everything up to the server's close."""
    received = b""
    while chunk := connection.recv(65_536):
        received += chunk
    return received


@pytest.mark.parametrize(
    "begun",
    [
        b"P",
        b"POST /runs HTTP/1.1\r\nHost: loc",
        HEAD,
        HEAD + b"Content-Length: 500\r\n\r\n{",
        HEAD + b"X: " + b"y" * 99,
    ],
    ids=["a letter", "a line and a half", "no end of the head", "a body's first byte", "half a header"],
)
def test_unfinished_request_is_answered_408(settings: Settings, begun: bytes) -> None:
    """Answer in the error shape, and close the connection."""
    with serving(settings, Hasty) as client, connected(client) as connection:
        connection.sendall(begun)
        head, _, body = answer(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert "detail" in json.loads(body)
        assert client.get("/runs").json()["runs"] == []


def test_trickling_request_is_cut(settings: Settings) -> None:
    """Send a byte now and then: neither a head nor a body gets more time for it."""
    with serving(settings, Hasty) as client:
        for begun in (HEAD, HEAD + b"Content-Length: 5000\r\n\r\n"):
            with connected(client) as connection:
                connection.sendall(begun)
                connection.settimeout(0.05)
                received = trickled(connection)
                assert received.startswith(b"HTTP/1.1 408 "), received


def trickled(connection: socket.socket) -> bytes:
    """Return the answer to a client that sends a byte each 50 ms."""

    def one_more() -> bytes | None:
        try:
            connection.sendall(b"y")
            return connection.recv(65_536)
        except TimeoutError:
            return None

    return eventually(one_more, what="an answer") or b""


def test_silent_connection_is_closed(settings: Settings) -> None:
    """Close an idle keep-alive connection as well; blank lines do not count."""
    with serving(settings, Hasty, keep_alive=1) as client:
        for said in (b"", b"\r\n", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            with connected(client) as connection:
                connection.sendall(said)
                assert b"HTTP/1.1 4" not in answer(connection)


class Counting(Hasty):
    """Server protocol that counts renewals of its time limit."""

    renewed: ClassVar[list[int]] = []

    def _expect(self, seconds: float) -> None:
        self.renewed.append(self._body_bytes)
        super()._expect(seconds)


def test_steady_large_body_is_accepted(settings: Settings) -> None:
    """Allow any total time, as long as enough bytes come in each interval."""
    Counting.renewed.clear()
    with serving(settings, Counting) as client:
        session = client.submit()["session_id"]
        event = {"event_type": "message", "session_id": session, "timestamp": "t", "content": "x" * 20_000}

        def steadily() -> Iterator[bytes]:
            yield b"["
            while len(Counting.renewed) < 3:
                yield b" " * 5000
                client.get("/health")
            yield json.dumps(event).encode() + b"]"

        stored = client.http.post(f"/sessions/{session}/events", content=steadily())
        assert (stored.status_code, stored.json()["ok"]) == (201, True)


class Listed(Hasty):
    """Server protocol that lists its connections."""

    clients: ClassVar[set[int]] = set()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.clients.add(transport.get_extra_info("peername")[1])

    def connection_lost(self, exc: Exception | None) -> None:
        self.clients.discard(self.client[1] if self.client else 0)
        super().connection_lost(exc)


def test_client_that_reads_no_answer_is_cut(settings: Settings) -> None:
    """Free the memory of what waits for it."""
    with serving(settings, Listed) as client:
        for _ in range(40):
            client.submit(parameters={"prompt": "x" * 200_000})
        with connected(client) as connection:
            connection.sendall(b"GET /runs HTTP/1.1\r\nHost: localhost\r\n\r\n")
            port = connection.getsockname()[1]
            eventually(lambda: port in Listed.clients, what="the connection")
            eventually(lambda: port not in Listed.clients, what="the end")
            assert not answer(connection).endswith(b"0\r\n\r\n")
        assert len(client.get("/runs").json()["runs"]) == 40


def test_idle_and_slow_connections_harm_no_other(settings: Settings) -> None:
    """Open a thousand idle connections and a hundred slow senders.

    Beside them a runner registers, polls, starts and completes; a stream begins, a list is read.
    """
    allow_connections()
    with serving(settings, BoundedHttp) as client, ExitStack() as connections:
        for number in range(IDLE + SLOW):
            connection = connections.enter_context(connected(client))
            if number >= IDLE:
                connection.sendall((HEAD, HEAD + b"Content-Length: 100\r\n\r\n{")[number % 2])
        runner_id = client.register()
        runs: list[dict[str, Any]] = [client.finished(runner_id) for _ in range(5)]
        assert {client.status(run["run_id"]) for run in runs} == {"completed"}
        with client.http.stream("GET", "/sse/sessions") as stream:
            assert "event: init" in (line for line in stream.iter_lines())
        assert client.post("/runs", {"type": "start_session", "parameters": PROMPT}).status_code == 201
