"""Scenarios of floods: bodies that wait for memory, and lists that their clients do not read."""

import json
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.lists.limits import ListLimits
from tests.support.callers import bearer
from tests.support.db_verbs import DbVerbs, start_submission
from tests.support.waiting import eventually
from tests.support.web import PROMPT, WebInThread

LARGE = 60_000


def large_runs(db: DbVerbs, number: int) -> set[str]:
    """Submit runs whose parameters do not compress."""
    texts = [random.Random(n).randbytes(LARGE // 2).hex() for n in range(number)]
    made = [db.accept(start_submission(parameters=json.dumps({"prompt": text}))) for text in texts]
    return {one.run_id for (one,) in made}


@contextmanager
def unread(web: WebInThread, path: str, token: str = "") -> Iterator[socket.socket]:
    """Ask for a list and read nothing of it."""
    host, _, port = web.client.url.removeprefix("http://").partition(":")
    shown = "".join(f"{name}: {value}\r\n" for name, value in bearer(token).items()) if token else ""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{shown}Connection: close\r\n\r\n".encode())
        yield connection


def counted_pages(web: WebInThread, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the sizes of the pages that the process makes from now on."""
    made: list[int] = []
    make = ListLimits.make

    async def make_and_count(self: ListLimits, caller: str, fetch: Any) -> Any:
        page = await make(self, caller, fetch)
        made.append(len(page.items))
        return page

    monkeypatch.setattr(ListLimits, "make", make_and_count)
    return made


def unread_list_holds_one_page(web: WebInThread, db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound pages by bytes, and read the next one when the client has taken the last."""
    made = large_runs(db, 300)
    pages = counted_pages(web, monkeypatch)
    with unread(web, "/runs") as connection:
        eventually(lambda: web.app.state.web.lists.open == 1 and pages, what="the list has begun")
        last = -1
        while len(pages) != last:
            last = len(pages)
            for _ in range(20):
                assert web.client.get("/health").status_code == 200
        assert all(number * LARGE < 1_000_000 for number in pages)
        assert sum(pages) <= len(made) // 2
        with connection.makefile("rb") as answer:
            body = answer.read()
    assert all(run_id.encode() in body for run_id in made)
    assert sum(pages) == len(made)
    eventually(lambda: web.app.state.web.lists.open == 0, what="the list has ended")


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
