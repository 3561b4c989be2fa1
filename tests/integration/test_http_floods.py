"""Hostile and large bodies over HTTP: stored, refused or delayed, never a 500, while other requests are answered."""

import json
import socket
from typing import Any

import pytest

from app.http.body_limits import PARSED_INLINE_BYTES
from app.http.lenient import MAX_VALUES
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.web import PROMPT, WebClient, WebInThread, served


def event(session_id: str, **fields: Any) -> dict[str, Any]:
    return {"event_type": "message", "session_id": session_id, "timestamp": "t"} | fields


def started_upload(web: WebInThread, path: str, size: int, sent: bytes) -> socket.socket:
    """Open a connection and send a part of a body."""
    host, _, port = web.client.url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n".encode() + sent)
    return connection


def body_beyond_the_bound_waits(web: WebInThread) -> None:
    """With a bound of 200,000 bytes, let its sender wait, and answer it once another body is done."""
    uploads = web.app.state.web.uploads
    session_id = web.client.submit()["session_id"]
    path = f"/sessions/{session_id}/events"
    body = json.dumps(event(session_id, content="x" * 300_000)).encode()
    with started_upload(web, path, len(body), body[:250_000]) as first:
        eventually(lambda: uploads.held > 100_000, what="the first body is being read")
        second = web.client.meanwhile(web.client.raw, path, body)
        eventually(lambda: uploads.waiting == 1, what="the second body waits")
        assert web.client.post("/runs", {"type": "start_session", "parameters": PROMPT}).status_code == 201
        first.sendall(body[250_000:])
        assert first.recv(65536).startswith(b"HTTP/1.1 201")
    assert second.result(60).status_code == 201
    assert (uploads.held, uploads.waiting) == (0, 0)


@pytest.mark.parametrize("raw", [b"[" * 1500, b"[" * 100_000, b"[{" * 1_000_000, b"]" * 1500])
@pytest.mark.parametrize(
    "path", ["/runs", "/runs/batch", "/sessions/s/events", "/runner/heartbeat", "/runner/register"]
)
def test_endless_brackets_are_422(client: WebClient, path: str, raw: bytes) -> None:
    """Send them as every kind of body; submissions may answer 413 when there are too many."""
    assert client.raw(path, raw).status_code in ({413, 422} if len(raw) > 100_000 else {422})
    assert client.get("/health").status_code == 200


def test_event_with_too_many_values_is_stored_with_its_field_as_text(client: WebClient) -> None:
    """Keep the other fields as sent."""
    session_id = client.submit()["session_id"]
    many = b"[" + b"[]," * (MAX_VALUES // 2) + b"[]]"
    body = json.dumps(event(session_id, tool_input={"a": [1]})).encode()[:-1] + b',"content":' + many + b"}"
    assert client.raw(f"/sessions/{session_id}/events", body).status_code == 201
    (listed,) = client.get(f"/sessions/{session_id}/events").json()["events"]
    assert (listed["content"], listed["tool_input"]) == (many.decode(), {"a": [1]})


def test_large_batch_and_large_events_are_stored(client: WebClient) -> None:
    """Store bodies parsed in a thread like others."""
    runs = [{"type": "start_session", "parameters": {"prompt": "x" * 10_000}} for _ in range(20)]
    assert PARSED_INLINE_BYTES < 200_000
    results = client.post("/runs/batch", {"runs": runs}).json()["results"]
    assert {result["code"] for result in results} == {201}
    session_id = results[0]["session_id"]
    sent = [
        event(session_id, content="x" * 50_000),
        event("other"),
        event(session_id, content=[{"text": "y" * 50_000}]),
    ]
    answer = client.post(f"/sessions/{session_id}/events", sent)
    assert [result["code"] for result in answer.json()["results"]] == [201, 400, 201]


def test_body_is_not_read_while_process_holds_too_many_bytes(settings: Settings) -> None:
    """Let small requests pass at once."""
    with served(settings.model_copy(update={"bodies_bytes": 200_000})) as web:
        body_beyond_the_bound_waits(web)


def test_body_that_cannot_be_held_in_time_is_503(settings: Settings) -> None:
    """Allow a retry; a stalled sender delays others no longer than a report is held."""
    with served(settings.model_copy(update={"bodies_bytes": 200_000})) as web:
        uploads = web.app.state.web.uploads
        uploads.patience_seconds = 0.0
        session_id = web.client.submit()["session_id"]
        path = f"/sessions/{session_id}/events"
        body = json.dumps(event(session_id, content="x" * 300_000)).encode()
        with started_upload(web, path, len(body), body[:250_000]):
            eventually(lambda: uploads.held > 100_000, what="the first body is being read")
            refused = web.client.raw(path, body)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        eventually(lambda: uploads.held == 0, what="the bytes of the client that left are released")
        assert web.client.raw(path, body).status_code == 201
