"""Floods of sign-ins that fail: they wait for their refusals, and delay no sign-in that is good."""

import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import pytest

from app.http.body_limits import UNCOUNTED_BYTES
from app.routes.console_sessions import BODY_BYTES
from models.core.callers import Role
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.callers import AUTH_ON, make_key, web_with_auth
from tests.support.db_verbs import DbVerbs
from tests.support.provider import ProviderOfTests, SignInBrowser, providing
from tests.support.web import WebInThread, served, until_ready

OWN = {"X-Coordinator-Console": "1", "Sec-Fetch-Site": "same-origin"}
MANY = 40


def sign_in(url: str, key: str) -> int:
    return httpx.post(f"{url}/console/session", json={"api_key": key}, headers=OWN, timeout=60).status_code


def test_unfinished_bodies_of_sign_ins_take_no_space_from_a_good_one(settings: Settings, db: DbVerbs) -> None:
    """Hold bodies back at their last byte: each is smaller than what is counted of a body."""
    assert BODY_BYTES < UNCOUNTED_BYTES
    # The share of clients without a credential would be full with two of these bodies.
    small = settings.model_copy(update={"bodies_bytes": 4 * BODY_BYTES})
    with web_with_auth(small) as web, ExitStack() as stack:
        where = urlsplit(web.client.url)
        head = "".join(f"{name}: {value}\r\n" for name, value in OWN.items())
        for _ in range(MANY):
            held = stack.enter_context(socket.create_connection((str(where.hostname), int(where.port or 0))))
            held.sendall(
                f"POST /console/session HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: {BODY_BYTES}\r\n{head}\r\n".encode()
                + b" " * (BODY_BYTES - 1)
            )
        uploads = web.app.state.web.uploads
        assert sign_in(web.client.url, make_key(db, Role.ADMIN)) == 200
        assert (uploads.held, uploads.waiting) == (0, 0)


def test_refused_sign_ins_delay_no_good_one(settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let refusals wait for an hour: the good sign-in is answered while all of them do."""
    monkeypatch.setattr("app.auth.throttle.LONGEST_TURN", 3600.0)
    monkeypatch.setattr("app.auth.caller_limits.REFUSALS_A_SECOND", 0.001)
    with web_with_auth(settings) as web:
        flood = [web.client.meanwhile(sign_in, web.client.url, f"crd_{n:012x}_{'0' * 64}") for n in range(16)]
        refusals = web.app.state.web.caller_limits._refusals
        eventually(lambda: "" in refusals._moments, what="refusals")
        assert sign_in(web.client.url, make_key(db, Role.USER, "ann")) == 200
        assert not any(call.done() for call in flood[1:])


def test_callbacks_that_wait_for_the_provider_do_not_keep_a_key_out(settings: Settings, db: DbVerbs) -> None:
    """Fill all exchanges with codes to which the provider does not answer."""
    with providing() as provider, served(settings.model_copy(update=AUTH_ON | provider.settings)) as web:
        until_ready(web)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            provider.changed_about = {"token_endpoint": f"http://127.0.0.1:{silent.getsockname()[1]}/token"}
            flood(web, provider)
            assert sign_in(web.client.url, make_key(db, Role.USER, "ann")) == 200
            assert web.client.get("/health").status_code == 200


def flood(web: WebInThread, provider: ProviderOfTests) -> None:
    browser = SignInBrowser()
    begun = browser.begin(web.client.url)
    state = httpx.URL(begun.headers["location"]).params["state"]
    for _ in range(16):
        web.client.meanwhile(browser.call_back, web.client.url, {"code": "x", "state": state})
    exchanges = web.app.state.web.sign_in._provider._exchanges
    eventually(exchanges.locked, what=f"all exchanges with {provider.url}")
