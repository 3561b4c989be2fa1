"""Lists over HTTP: streamed as clients read them, with one page in memory and a bounded number at a time."""

import asyncio
import json
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.lists.limits import ListLimits
from coordinator_client.client import CoordinatorClient
from models.core.callers import Role
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.callers import AUTH_ON, bearer, client_with, make_key
from tests.support.db_verbs import DbVerbs, start_submission
from tests.support.web import PROMPT, WebClient, WebInThread, served

LARGE = 60_000
# Requests of a list, by the parameters that decide on the cursor: those that have it in the body, and those that do not.
WITH_CURSOR = ["cursor_in_body=1", "limit=5", "limit=5&cursor_in_body=true"]
WITHOUT_CURSOR = ["", "cursor_in_body=0", "cursor_in_body=false&limit=5", "_=17", "Cursor_in_body=1"]


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


def test_unread_list_is_not_read_ahead(settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold one page of an unread answer in memory."""
    with served(settings) as web:
        unread_list_holds_one_page(web, db, monkeypatch)


def test_unread_lists_of_caller_are_bounded(settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer one more with 429 after a while; serve pages, other callers and later lists."""
    monkeypatch.setattr("app.lists.limits.LONGEST_WAIT", 0.1)
    large_runs(db, 200)
    ann, bob = make_key(db, Role.ADMIN), make_key(db, Role.ADMIN)
    with served(settings.model_copy(update=AUTH_ON | {"lists_per_caller": 1})) as web:
        lists = web.app.state.web.lists
        with client_with(web.client.url, ann) as client, client_with(web.client.url, bob) as other:
            with unread(web, "/runs", ann):
                eventually(lambda: lists.open == 1, what="the list has begun")
                refused = client.get("/sessions")
                assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
                assert "1 are allowed" in refused.json()["detail"]
                assert client.get("/sessions", limit=100).status_code == 200
                assert other.get("/sessions").status_code == 200
            eventually(lambda: lists.open == 0, what="the list of the client that left has ended")
            assert client.get("/sessions").status_code == 200


def test_unread_lists_of_process_are_bounded_without_authentication(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Count all callers as one."""
    monkeypatch.setattr("app.lists.limits.LISTS_AT_ONCE", 1)
    monkeypatch.setattr("app.lists.limits.LONGEST_WAIT", 0.1)
    large_runs(db, 200)
    with served(settings) as web:
        with unread(web, "/runs"):
            eventually(lambda: web.app.state.web.lists.open == 1, what="the list has begun")
            refused = web.client.get("/runs")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        eventually(lambda: web.client.get("/runs").status_code == 200, what="lists are served again")


def test_runners_have_pages_that_client_library_follows(client: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page like runs and sessions; without `limit` and `cursor` return all of them."""
    made = [client.register(f"host{n}") for n in range(5)]
    first = client.get("/runners", limit=2).json()
    second = client.get("/runners", limit=3, cursor=first["next_cursor"]).json()
    assert [runner["runner_id"] for runner in first["runners"] + second["runners"]] == made
    assert "next_cursor" not in second
    assert [runner["runner_id"] for runner in client.get("/runners").json()["runners"]] == made
    assert client.get("/runners", limit=0).status_code == 422
    assert client.get("/runners", cursor="none").status_code == 400

    monkeypatch.setattr("coordinator_client.client.LARGEST_PAGE", 2)

    async def read() -> list[str]:
        async with CoordinatorClient(client.url) as library:
            return [runner["runner_id"] for runner in await library.runners()]

    assert asyncio.run(read()) == made


def test_run_with_one_demand_profile_too_many_is_422(settings: Settings, db: DbVerbs) -> None:
    """Name what to change; accept the others of the batch."""
    ann = make_key(db, Role.USER, "ann")
    with (
        served(settings.model_copy(update=AUTH_ON | {"demands_per_owner": 1})) as web,
        client_with(web.client.url, ann) as client,
    ):
        client.submit(additional_demands={"tags": ["a"]})
        body = {"type": "start_session", "parameters": PROMPT, "additional_demands": {"tags": ["b"]}}
        refused = client.post("/runs", body)
        assert refused.status_code == 422
        assert "At most 1 distinct sets of demands" in refused.json()["detail"][0]["msg"]
        batch = client.post("/runs/batch", {"runs": [body, body | {"additional_demands": {"tags": ["a"]}}]})
        assert [result["code"] for result in batch.json()["results"]] == [422, 201]


def test_lists_have_exactly_the_body_of_deployed_clients_unless_asked_otherwise(client: WebClient) -> None:
    """Every answer has the header `Feed-Cursor`; the same cursor is in the body for requests that ask."""
    session_id = client.submit()["session_id"]
    lists = {"runs": "/runs", "sessions": "/sessions", "events": f"/sessions/{session_id}/events"}
    own = {
        "runs": ["agent_name=x", "label=a=b", "fields=summary", "ready=true&cursor_in_body=1", "q=run_1234567890"],
        "sessions": ["status=pending", "parent_session_id=x"],
        "events": ["order=desc", "run_id=x"],
    }
    deployed = {"runs": ["status=pending", "status=other"], "sessions": [], "events": []}
    for name, path in lists.items():
        for query in [*WITH_CURSOR, *own[name]]:
            answer = client.http.get(f"{path}?{query}")
            assert (query, answer.json().get("feed_cursor")) == (query, answer.headers["feed-cursor"])
        for query in [*WITHOUT_CURSOR, *deployed[name]]:
            answer = client.http.get(f"{path}?{query}")
            assert (query, set(answer.json())) == (query, {name})
            assert answer.headers["feed-cursor"].startswith("v1.")
        assert client.http.get(f"{path}?cursor_in_body=maybe").status_code == 422
    assert "feed_cursor" not in client.http.get("/runs?fields=summary&cursor_in_body=0").json()
    assert "feed-cursor" not in client.get("/runners").headers
    origin = {"Origin": "http://localhost:3000"}
    assert "Feed-Cursor" in client.http.get("/sessions", headers=origin).headers["access-control-expose-headers"]


def test_list_of_nothing_is_what_deployed_clients_compare_with(client: WebClient) -> None:
    assert client.get("/sessions").json() == {"sessions": []}
    assert client.get("/runs").json() == {"runs": []}
    assert client.get("/runners").json() == {"runners": []}


def test_client_library_asks_for_the_cursor(client: WebClient) -> None:
    """Read it of all lists, also without another parameter."""

    async def read() -> set[str | None]:
        async with CoordinatorClient(client.url) as library:
            pages = [await library.runs(), await library.sessions(), await library.search_runs()]
            return {page.get("feed_cursor", "")[:3] for page in pages}

    assert asyncio.run(read()) == {"v1."}
