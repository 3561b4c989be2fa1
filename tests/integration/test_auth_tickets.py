"""Tickets, by which a browser opens a stream, and streams that end with the credential that opened them."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from models.core.callers import Role
from models.feed.sequence import sequence_feed
from runtime.settings import Settings
from tests.support.callers import ASKING, asking, bearer, calling, make_key, revoke
from tests.support.contenders import crowd
from tests.support.db_verbs import DbVerbs
from tests.support.following import following
from tests.support.issuer import issuing
from tests.support.waiting import eventually
from tests.support.web import WebClient, WebInThread, served, until_ready


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with asking(settings) as web:
        yield web


@pytest.fixture
def ann(web: WebInThread, db: DbVerbs) -> Iterator[WebClient]:
    with calling(web.client.url, make_key(db, Role.USER, "ann")) as ann:
        yield ann


def ticket(who: WebClient, **filters: Any) -> str:
    answer = who.post("/sse/ticket", filters)
    assert answer.status_code == 201, answer.text
    assert answer.json()["expires_in"] == 60
    return str(answer.json()["ticket"])


def status(url: str, **query: str) -> int:
    """What a stream is answered with."""
    with httpx.stream("GET", f"{url}/sse/sessions", params=query) as answer:
        return answer.status_code


def sessions(url: str, **query: str) -> list[str]:
    """Those of the snapshot."""
    with following(url, query) as stream:
        return [one["session_id"] for one in json.loads(stream.until("init")[-1].data)["sessions"]]


def test_a_ticket_opens_one_stream_of_who_asked_for_it(settings: Settings, ann: WebClient, db: DbVerbs) -> None:
    """On any instance, without a header; the second time it is refused."""
    with calling(ann.url, make_key(db, Role.USER, "bob")) as bob:
        bob.submit(session_id="bobs")
    ann.submit(session_id="anns")
    db.do(sequence_feed)
    shown = ticket(ann)
    with served(settings.model_copy(update=ASKING)) as another:
        assert sessions(another.client.url, ticket=shown) == ["anns"]
    assert status(ann.url, ticket=shown) == 403
    assert db.one("SELECT count(*) FROM stream_tickets") == 0


def test_a_ticket_is_bound_to_its_filters(ann: WebClient, db: DbVerbs) -> None:
    """Whatever the query says beside it; where to resume is no filter."""
    ann.submit(session_id="one")
    ann.submit(session_id="two")
    db.do(sequence_feed)
    assert sessions(ann.url, ticket=ticket(ann, session_id="one"), session_id="two") == ["one"]
    assert sessions(ann.url, ticket=ticket(ann), session_id="two") == ["two", "one"]
    with following(ann.url, {"ticket": ticket(ann, session_id="one")}) as stream:
        cursor = stream.until("init")[-1].id
    event = {"event_type": "message", "session_id": "one", "timestamp": "t", "content": "later"}
    assert ann.post("/sessions/one/events", event).status_code == 201
    with following(ann.url, {"ticket": ticket(ann, session_id="one"), "last_event_id": cursor}) as stream:
        assert "later" in stream.take(1)[0].data


def test_a_ticket_is_bound_to_its_filters_while_everybody_is_an_admin(settings: Settings, db: DbVerbs) -> None:
    """A page that always asks for one works in an open house too."""
    with served(settings) as web:
        until_ready(web)
        web.client.submit(session_id="one")
        web.client.submit(session_id="two")
        db.do(sequence_feed)
        shown = ticket(web.client, session_id="one")
        assert sessions(web.client.url, ticket=shown) == ["one"]
        assert status(web.client.url, ticket=shown) == 403


def test_many_who_show_the_same_ticket_at_once_get_one_stream(settings: Settings, ann: WebClient) -> None:
    """Also on two instances."""
    shown = ticket(ann)
    with served(settings.model_copy(update=ASKING)) as another:
        urls = [ann.url, another.client.url]
        assert sorted(crowd(16, lambda place: status(urls[place % 2], ticket=shown))) == [200] + [403] * 15


def test_a_ticket_opens_nothing_else(ann: WebClient) -> None:
    """Not a list, not a poll; and made-up ones open no stream."""
    shown = ticket(ann)
    assert httpx.get(f"{ann.url}/runs", params={"ticket": shown}).status_code == 401
    assert httpx.get(f"{ann.url}/runs", headers=bearer(shown)).status_code == 401
    for made_up in ("", "tkt_", "tkt_" + 43 * "A", "\x00", "x" * 5000, shown + "x", ann.token):
        assert status(ann.url, ticket=made_up) in {401, 403}
    assert status(ann.url, ticket=shown) == 200


def test_a_ticket_that_waited_too_long_is_refused(ann: WebClient, db: DbVerbs) -> None:
    """A minute; those that nobody used go with the next ones."""
    old = ticket(ann)
    db.rows("UPDATE stream_tickets SET expires_at = now() - interval '1 second'")
    assert status(ann.url, ticket=old) == 403
    ticket(ann)
    db.rows("UPDATE stream_tickets SET expires_at = now() - interval '2 minutes'")
    ticket(ann)
    assert db.one("SELECT count(*) FROM stream_tickets") == 1


def test_a_ticket_of_a_key_that_was_revoked_since_is_refused(web: WebInThread, ann: WebClient, db: DbVerbs) -> None:
    """Once the process knows."""
    shown = ticket(ann)
    revoke(db, ann.token)
    eventually(lambda: ann.get("/runs").status_code == 403, 5)
    assert status(web.client.url, ticket=shown) == 403


def test_tickets_are_kept_as_hashes(ann: WebClient, db: DbVerbs) -> None:
    """Who reads the table can open nothing."""
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
def test_filters_that_mean_nothing_are_refused(ann: WebClient, body: Any, code: int) -> None:
    """When the ticket is asked for, not when the browser comes with it."""
    assert ann.post("/sse/ticket", body).status_code == code


def test_no_body_is_no_filter(ann: WebClient) -> None:
    """As the simplest client asks."""
    assert ann.raw("/sse/ticket", b"").status_code == 201


@pytest.mark.parametrize("way", ["header", "ticket"])
def test_a_stream_ends_when_its_key_expires_or_is_revoked(web: WebInThread, db: DbVerbs, way: str) -> None:
    """Cleanly, so that the client comes back and hears 403."""
    for ending in ("expires", "revoked"):
        token = make_key(db, Role.USER, "ann", expires_in=3 if ending == "expires" else None)
        with calling(web.client.url, token) as ann:
            shown = bearer(token) if way == "header" else {}
            query = {"ticket": ticket(ann)} if way == "ticket" else {}
            with following(ann.url, query, **shown) as stream:
                stream.until("init")
                if ending == "revoked":
                    revoke(db, token)
                # Nothing but moves of the cursor: keys that are made and revoked have events that only admins see.
                assert {message.event for message in stream.messages(within=10)} == {""}
            # A ticket's end and its key's are told by two looks at one clock.
            eventually(lambda ann=ann: ann.get("/runs").status_code == 403, 2, what="the end of the key")


@pytest.mark.parametrize("way", ["header", "ticket"])
def test_a_stream_ends_when_its_token_expires(settings: Settings, way: str) -> None:
    """A token of the issuer has its time in it, a ticket got with it as well."""
    with issuing() as issuer, served(settings.model_copy(update=ASKING | issuer.settings)) as web:
        until_ready(web)
        token = issuer.token(exp=int(time.time()) - 7)
        with calling(web.client.url, token) as ann:
            shown = bearer(token) if way == "header" else {}
            query = {"ticket": ticket(ann)} if way == "ticket" else {}
            with following(ann.url, query, **shown) as stream:
                stream.until("init")
                assert [message.event for message in stream.messages(within=10)] == [""]


def test_a_wait_ends_when_its_key_expires(web: WebInThread, db: DbVerbs) -> None:
    """What is held is held for somebody who may know."""
    with calling(web.client.url, make_key(db, Role.USER, "ann", expires_in=2)) as ann:
        run_id = ann.submit()["run_id"]
        assert ann.get(f"/runs/{run_id}", wait=30).status_code == 403
