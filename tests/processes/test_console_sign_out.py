"""Sign-out, at every instance: streams and held requests of that session end, those of others go on."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from models.core.callers import Role
from testkit.cluster import Cluster, Process
from testkit.feed_follower import Connection, open_stream
from testkit.waiting import eventually
from tests.support.callers import client_with, make_key, revoke
from tests.support.db_verbs import DbVerbs
from tests.support.web import PROMPT, WebClient

# Bound that docs/security.md promises.
ENDED_SECONDS = 5
# Long enough to open all calls first.
BRIEF_SECONDS = 15
OWN = {"X-Coordinator-Console": "1", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def webs(cluster: Cluster) -> list[Process]:
    webs, _ = cluster.start_processes(webs=2, workers=0, auth=1)
    return webs


@dataclass
class Held:
    """Calls that a session of the console holds open: a stream by cookie and one by ticket, a wait and a poll."""

    headers: dict[str, str]
    streams: list[Connection]
    calls: list[Any]

    def have_ended(self, within: float = ENDED_SECONDS) -> None:
        for stream in self.streams:
            # Read to its end.
            list(stream.messages(within=within))
        assert [call.result(within).status_code for call in self.calls] == [401] * len(self.calls)

    def go_on(self, url: str) -> None:
        # No poll takes it.
        demands = {"tags": ["elsewhere"]}
        body = {"type": "start_session", "parameters": PROMPT, "session_id": "later", "additional_demands": demands}
        assert httpx.post(f"{url}/runs", json=body, headers=self.headers).status_code == 201
        for stream in self.streams:
            stream.take_until(lambda message: '"later"' in message.data)
        assert not any(call.done() for call in self.calls)


def cookie(url: str, key: str) -> dict[str, str]:
    """Sign in; return the headers of a page."""
    answer = httpx.post(f"{url}/console/session", json={"api_key": key}, headers=OWN)
    assert answer.status_code == 200, answer.text
    return {**OWN, "Cookie": answer.headers["set-cookie"].partition(";")[0]}


def hold(stack: ExitStack, webs: list[Process], db: DbVerbs, headers: dict[str, str], runner: str) -> Held:
    """Open all of it at each instance, and wait until it is open."""
    held = Held(headers, [], [])
    for place, web in enumerate(webs):
        client = stack.enter_context(client_with(web.url, ""))
        client.http.headers.update(headers)
        ticket = client.post("/sse/ticket", {}).json()["ticket"]
        names = {name.replace("-", "_"): value for name, value in headers.items()}
        for query, shown in (({}, names), ({"ticket": ticket}, {})):
            stream = stack.enter_context(open_stream(web.url, query, **shown))
            stream.until("init")
            held.streams.append(stream)
        run_id = client.submit(additional_demands={"tags": ["elsewhere"]})["run_id"]
        held.calls.append(client.meanwhile(client.get, f"/runs/{run_id}", wait=60))
        held.calls.append(poll(client, f"{runner} {place}"))
    eventually(lambda: db.one("SELECT count(*) FROM waiting_polls") >= len(webs), what="parked polls")
    return held


def poll(client: WebClient, name: str) -> Any:
    return client.meanwhile(client.poll, client.register(name), 60)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_sign_out_ends_what_the_session_holds_open_at_every_instance(
    webs: list[Process], db: DbVerbs, stack: ExitStack
) -> None:
    """End it where the person signs out and at the other instance; another session of the same key goes on."""
    key = make_key(db, Role.ADMIN)
    own, other = (hold(stack, webs, db, cookie(webs[0].url, key), name) for name in ("own", "other"))
    ticket = httpx.post(f"{webs[1].url}/sse/ticket", headers=own.headers, json={}).json()["ticket"]
    assert httpx.delete(f"{webs[0].url}/console/session", headers=own.headers).status_code == 200
    own.have_ended()
    assert httpx.get(f"{webs[1].url}/sse/sessions", params={"ticket": ticket}).status_code == 401
    for web in webs:
        assert httpx.get(f"{web.url}/me", headers=own.headers).status_code == 401
        assert httpx.get(f"{web.url}/me", headers=other.headers).status_code == 200
    other.go_on(webs[1].url)
    revoke(db, key)
    other.have_ended()


def test_expiry_ends_what_the_session_holds_open_at_every_instance(
    webs: list[Process], db: DbVerbs, stack: ExitStack
) -> None:
    """End it with the session, whose end is that of its key, and with one that ended earlier than it said."""
    kept = hold(stack, webs, db, cookie(webs[0].url, make_key(db, Role.ADMIN)), "kept")
    brief = hold(stack, webs, db, cookie(webs[0].url, make_key(db, Role.ADMIN, expires_in=BRIEF_SECONDS)), "brief")
    brief.have_ended(within=BRIEF_SECONDS + ENDED_SECONDS)
    kept.go_on(webs[1].url)
    db.rows("UPDATE console_sessions SET expires_at = now()")
    kept.have_ended()
