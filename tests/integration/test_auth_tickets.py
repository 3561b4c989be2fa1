"""Tickets with which a browser opens a stream, and streams that end with the credential that opened them."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from models.core.callers import Role
from models.feed.sequence import sequence_feed
from runtime.settings import Settings
from testkit.feed_follower import open_stream
from testkit.waiting import eventually
from tests.support.callers import AUTH_ON, bearer, client_with, make_key, revoke, web_with_auth
from tests.support.contenders import run_in_threads
from tests.support.db_verbs import DbVerbs
from tests.support.issuer import issuing
from tests.support.web import WebClient, WebInThread, served, until_ready


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with web_with_auth(settings) as web:
        yield web


@pytest.fixture
def ann(web: WebInThread, db: DbVerbs) -> Iterator[WebClient]:
    with client_with(web.client.url, make_key(db, Role.USER, "ann")) as ann:
        yield ann


def ticket(client: WebClient, **filters: Any) -> str:
    answer = client.post("/sse/ticket", filters)
    assert answer.status_code == 201, answer.text
    assert answer.json()["expires_in"] == 60
    return str(answer.json()["ticket"])


def status(url: str, **query: str) -> int:
    """Return the status of a stream's answer."""
    with httpx.stream("GET", f"{url}/sse/sessions", params=query) as answer:
        return answer.status_code


def sessions(url: str, **query: str) -> list[str]:
    """Return the sessions of the snapshot."""
    with open_stream(url, query) as stream:
        return [session["session_id"] for session in json.loads(stream.until("init")[-1].data)["sessions"]]


def test_ticket_opens_one_stream_of_its_owner(settings: Settings, ann: WebClient, db: DbVerbs) -> None:
    """Open it on any instance without a header; the second use is refused."""
    with client_with(ann.url, make_key(db, Role.USER, "bob")) as bob:
        bob.submit(session_id="bobs")
    ann.submit(session_id="anns")
    db.do(sequence_feed)
    shown = ticket(ann)
    with served(settings.model_copy(update=AUTH_ON)) as another:
        assert sessions(another.client.url, ticket=shown) == ["anns"]
    assert status(ann.url, ticket=shown) == 403
    assert db.one("SELECT count(*) FROM stream_tickets") == 0


def test_ticket_is_bound_to_its_filters(ann: WebClient, db: DbVerbs) -> None:
    """Ignore other filters in the query; the place to resume from is no filter."""
    ann.submit(session_id="one")
    ann.submit(session_id="two")
    db.do(sequence_feed)
    assert sessions(ann.url, ticket=ticket(ann, session_id="one"), session_id="two") == ["one"]
    assert sessions(ann.url, ticket=ticket(ann), session_id="two") == ["two", "one"]
    with open_stream(ann.url, {"ticket": ticket(ann, session_id="one")}) as stream:
        cursor = stream.until("init")[-1].id
    event = {"event_type": "message", "session_id": "one", "timestamp": "t", "content": "later"}
    assert ann.post("/sessions/one/events", event).status_code == 201
    with open_stream(ann.url, {"ticket": ticket(ann, session_id="one"), "last_event_id": cursor}) as stream:
        assert "later" in stream.take(1)[0].data


def test_ticket_is_bound_to_its_filters_while_authentication_is_off(settings: Settings, db: DbVerbs) -> None:
    """Serve pages that always ask for a ticket."""
    with served(settings) as web:
        until_ready(web)
        web.client.submit(session_id="one")
        web.client.submit(session_id="two")
        db.do(sequence_feed)
        shown = ticket(web.client, session_id="one")
        assert sessions(web.client.url, ticket=shown) == ["one"]
        assert status(web.client.url, ticket=shown) == 403


def test_concurrent_uses_of_one_ticket_open_one_stream(settings: Settings, ann: WebClient) -> None:
    """Use it on two instances too."""
    shown = ticket(ann)
    with served(settings.model_copy(update=AUTH_ON)) as another:
        urls = [ann.url, another.client.url]
        assert sorted(run_in_threads(16, lambda place: status(urls[place % 2], ticket=shown))) == [200] + [403] * 15


def test_ticket_opens_nothing_but_streams(ann: WebClient) -> None:
    """Refuse lists, polls, and streams with made-up tickets."""
    shown = ticket(ann)
    assert httpx.get(f"{ann.url}/runs", params={"ticket": shown}).status_code == 401
    assert httpx.get(f"{ann.url}/runs", headers=bearer(shown)).status_code == 401
    for made_up in ("", "tkt_", "tkt_" + 43 * "A", "\x00", "x" * 5000, shown + "x", ann.token):
        assert status(ann.url, ticket=made_up) in {401, 403}
    assert status(ann.url, ticket=shown) == 200


def test_expired_ticket_is_refused(ann: WebClient, db: DbVerbs) -> None:
    """Expire after a minute; unused tickets are removed with the next ones."""
    old = ticket(ann)
    db.rows("UPDATE stream_tickets SET expires_at = now() - interval '1 second'")
    assert status(ann.url, ticket=old) == 403
    ticket(ann)
    db.rows("UPDATE stream_tickets SET expires_at = now() - interval '2 minutes'")
    ticket(ann)
    assert db.one("SELECT count(*) FROM stream_tickets") == 1


def test_ticket_of_key_revoked_since_is_refused(web: WebInThread, ann: WebClient, db: DbVerbs) -> None:
    shown = ticket(ann)
    revoke(db, ann.token)
    eventually(lambda: ann.get("/runs").status_code == 403, 5)
    assert status(web.client.url, ticket=shown) == 403


def test_tickets_are_stored_as_hashes(ann: WebClient, db: DbVerbs) -> None:
    """Expect the table to hold nothing that opens a stream."""
    shown = ticket(ann)
    assert shown.removeprefix("tkt_") not in str(db.rows("SELECT CAST(t AS text) FROM stream_tickets t"))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (None, 422),
        ([], 422),
        ({"session_id": 7}, 422),
        ({"session_id": "x" * 2000}, 422),
        ({"types": "nonsense"}, 422),
        ({"session_id": "a\x00b", "types": "event"}, 422),
        ({"unknown": True}, 201),
    ],
)
def test_meaningless_filters_are_refused(ann: WebClient, body: Any, code: int) -> None:
    """Refuse when the ticket is requested, not when it is used."""
    assert ann.post("/sse/ticket", body).status_code == code


def test_missing_body_means_no_filter(ann: WebClient) -> None:
    """Accept the simplest client's request."""
    assert ann.raw("/sse/ticket", b"").status_code == 201


@pytest.mark.parametrize("way", ["header", "ticket"])
def test_stream_ends_when_its_key_expires_or_is_revoked(web: WebInThread, db: DbVerbs, way: str) -> None:
    """End it cleanly, so that the client reconnects and gets 403."""
    for ending in ("expires", "revoked"):
        token = make_key(db, Role.USER, "ann", expires_in=3 if ending == "expires" else None)
        with client_with(web.client.url, token) as ann:
            shown = bearer(token) if way == "header" else {}
            query = {"ticket": ticket(ann)} if way == "ticket" else {}
            with open_stream(ann.url, query, **shown) as stream:
                stream.until("init")
                if ending == "revoked":
                    revoke(db, token)
                # Only cursor moves arrive: events of keys made and revoked are visible to admins alone.
                assert {message.event for message in stream.messages(within=30)} == {""}
            # The expiry of a ticket and that of its key are read at two moments.
            eventually(lambda ann=ann: ann.get("/runs").status_code == 403, what="the end of the key")


@pytest.mark.parametrize("way", ["header", "ticket"])
def test_stream_ends_when_its_token_expires(settings: Settings, way: str) -> None:
    """Cover a ticket that was obtained with the token, too."""
    with issuing() as issuer, served(settings.model_copy(update=AUTH_ON | issuer.settings)) as web:
        until_ready(web)
        token = issuer.token(exp=int(time.time()) - 7)
        with client_with(web.client.url, token) as ann:
            shown = bearer(token) if way == "header" else {}
            query = {"ticket": ticket(ann)} if way == "ticket" else {}
            with open_stream(ann.url, query, **shown) as stream:
                stream.until("init")
                assert [message.event for message in stream.messages(within=30)] == [""]


def test_wait_ends_when_its_key_expires(web: WebInThread, db: DbVerbs) -> None:
    with client_with(web.client.url, make_key(db, Role.USER, "ann", expires_in=2)) as ann:
        run_id = ann.submit()["run_id"]
        assert ann.get(f"/runs/{run_id}", wait=30).status_code == 403
