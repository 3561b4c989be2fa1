"""`Coordinator-Instance`: the header that distinguishes our answers from those of a proxy."""

import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.http.origins import EXPOSED_HEADERS
from runtime.settings import Settings
from server.http_server import HEAD_BYTES, INSTANCE_HEADER
from tests.support.web import WebInThread, served

PAGE = "http://localhost:3000"


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings.model_copy(update={"submission_bytes": 2000, "body_bytes": 4000})) as web:
        yield web


def instance_of(answer: httpx.Response) -> str:
    return str(answer.headers.get(INSTANCE_HEADER, "none"))


@pytest.mark.parametrize(
    ("method", "path", "status", "more"),
    [
        ("GET", "/health", 200, {}),
        ("GET", "/health/live", 200, {}),
        ("GET", "/metrics", 200, {}),
        ("GET", "/docs", 200, {}),
        ("GET", "/openapi.json", 200, {}),
        ("GET", "/static/docs/nothing.js", 404, {}),
        ("GET", "/nothing", 404, {}),
        ("GET", "/runs/run_unknown", 404, {}),
        ("PUT", "/runs", 405, {}),
        ("GET", "/runner/runs?runner_id=lnch_unknown", 401, {}),
        ("POST", "/runs", 422, {"content": b"{}"}),
        ("POST", "/runs", 413, {"content": b"x" * 3000}),
        ("POST", "/sessions/s/events", 413, {"content": b"x" * 70_000_000}),
        ("OPTIONS", "/runs", 200, {"headers": {"Origin": PAGE, "Access-Control-Request-Method": "POST"}}),
        ("GET", "/runs", 403, {"headers": {"Origin": "http://foreign.example"}}),
        ("HEAD", "/health", 405, {}),
    ],
)
def test_every_answer_names_its_instance(
    web: WebInThread, method: str, path: str, status: int, more: dict[str, Any]
) -> None:
    """Call known and unknown routes, and cause refusals of each layer, pages and preflights."""
    answer = web.client.http.request(method, path, **more)
    assert answer.status_code == status
    assert instance_of(answer) == web.app.state.instance


def test_polls_and_streams_name_their_instance(web: WebInThread) -> None:
    """Check an empty poll (204), and a stream from its first byte."""
    runner = web.client.register()
    empty = web.client.poll(runner)
    assert (empty.status_code, instance_of(empty)) == (204, web.app.state.instance)
    with web.client.http.stream("GET", "/sse/sessions") as stream:
        assert instance_of(stream) == web.app.state.instance


def test_unexpected_error_names_its_instance(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    with served(settings) as web:
        monkeypatch.setattr("app.routes.sessions.SessionFilter", broken)
        answer = web.client.get("/sessions")
    assert (answer.status_code, instance_of(answer)) == (500, web.app.state.instance)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (HEAD_BYTES + 1000), b"431"),
    ],
)
def test_protocol_errors_name_instance(web: WebInThread, request_: bytes, status: bytes) -> None:
    """Send requests that never reach the application."""
    where = urlsplit(web.client.url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=30) as connection:
        connection.sendall(request_)
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
    assert answer.split()[1] == status
    assert f"{INSTANCE_HEADER}: {web.app.state.instance}\r\n".lower().encode() in answer.lower()


def test_parked_requests_answered_at_shutdown_name_instance(web: WebInThread) -> None:
    runner = web.client.register()
    parked = web.client.meanwhile(web.client.poll, runner, 30)
    web.until_parked()
    web.drain(0)
    assert instance_of(parked.result(30)) == web.app.state.instance


def test_browsers_may_read_instance(web: WebInThread) -> None:
    """Expose the header by CORS."""
    assert INSTANCE_HEADER in EXPOSED_HEADERS
    answer = web.client.http.get("/runs", headers={"Origin": PAGE})
    assert INSTANCE_HEADER.lower() in answer.headers["access-control-expose-headers"].lower()
