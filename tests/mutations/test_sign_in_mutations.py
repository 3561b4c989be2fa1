"""Break one mechanism of the sign-in by OIDC, or of the end of a session, on purpose: its guard must notice."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

import app.auth.oidc_sign_in
import models.auth.console_sessions
from app.auth.oidc_sign_in import BegunSignIn
from app.auth.watched_sessions import WatchedSessions
from models.core.callers import Role
from runtime.settings import Settings
from testkit.feed_follower import open_stream
from testkit.waiting import eventually
from tests.support.callers import AUTH_ON, make_key, web_with_auth
from tests.support.db_verbs import DbVerbs
from tests.support.provider import ProviderOfTests, SignInBrowser, providing
from tests.support.web import WebInThread, served, until_ready

OWN = {"X-Coordinator-Console": "1", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def provider() -> Iterator[ProviderOfTests]:
    with providing() as provider:
        yield provider


@pytest.fixture
def web(settings: Settings, provider: ProviderOfTests) -> Iterator[WebInThread]:
    with served(settings.model_copy(update=AUTH_ON | provider.settings)) as web:
        until_ready(web)
        yield web


@pytest.fixture
def browser() -> Iterator[SignInBrowser]:
    browser = SignInBrowser()
    yield browser
    browser.close()


def own_state_is_demanded(web: WebInThread, browser: SignInBrowser) -> None:
    """Show a victim's browser, which began a sign-in too, the state of another one."""
    url = web.client.url
    state = browser.approve(browser.begin(url))["state"]
    own = browser.approve(browser.begin(url))
    browser.call_back(url, {**own, "state": state})
    assert browser.ask(url).status_code == 401


def own_nonce_is_demanded(web: WebInThread, provider: ProviderOfTests, browser: SignInBrowser) -> None:
    provider.claims_of_id = {"nonce": "A" * 43}
    browser.sign_in(web.client.url)
    assert browser.ask(web.client.url).status_code == 401


def callback_counts_once(web: WebInThread, provider: ProviderOfTests, browser: SignInBrowser) -> None:
    """Use a provider that accepts a code again."""
    url = web.client.url
    provider.reuses_codes = True
    browser.http.cookies.clear()
    begun = browser.approve(browser.begin(url))
    cookie = browser.http.cookies["coordinator_sign_in"]
    browser.call_back(url, begun)
    browser.http.cookies.clear()
    browser.http.cookies.set("coordinator_sign_in", cookie)
    browser.call_back(url, begun)
    assert browser.ask(url).status_code == 401


def test_uncompared_state_is_noticed(web: WebInThread, browser: SignInBrowser, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link could sign a person in as another one."""
    own_state_is_demanded(web, browser)
    monkeypatch.setattr(app.auth.oidc_sign_in, "_equal", lambda given, wanted: bool(given and wanted))
    with pytest.raises(AssertionError, match="200 == 401"):
        own_state_is_demanded(web, browser)


def test_uncompared_nonce_is_noticed(
    web: WebInThread, provider: ProviderOfTests, browser: SignInBrowser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ID token of another sign-in could be put in."""
    own_nonce_is_demanded(web, provider, browser)
    monkeypatch.setattr(app.auth.oidc_sign_in, "_is_for", lambda *_: True)
    with pytest.raises(AssertionError, match="200 == 401"):
        own_nonce_is_demanded(web, provider, browser)


def test_sign_in_used_again_is_noticed(
    web: WebInThread, provider: ProviderOfTests, browser: SignInBrowser, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback_counts_once(web, provider, browser)
    monkeypatch.setattr(models.auth.console_sessions, "_used_elsewhere", lambda *_: set())
    with pytest.raises(AssertionError, match="200 == 401"):
        callback_counts_once(web, provider, browser)


def test_verifier_that_is_not_the_one_of_the_challenge_is_noticed(
    web: WebInThread, browser: SignInBrowser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider of the tests checks PKCE: it accepts no code with another verifier."""
    begun = browser.approve(browser.begin(web.client.url))
    monkeypatch.setattr(BegunSignIn, "verifier", property(lambda _: "A" * 43))
    browser.call_back(web.client.url, begun)
    assert "invalid_grant" in str(browser.error(web.client.url))


def sign_out_elsewhere_ends_streams(settings: Settings, db: DbVerbs) -> None:
    """Close the session at another instance than the one that holds the stream."""
    with web_with_auth(settings) as web, served(settings.model_copy(update=AUTH_ON)) as other:
        until_ready(other)
        answer = web.client.http.post("/console/session", json={"api_key": make_key(db, Role.USER, "ann")}, headers=OWN)
        cookie = answer.headers["set-cookie"].partition(";")[0]
        shown = {"X_Coordinator_Console": "1", "Sec_Fetch_Site": "same-origin", "Cookie": cookie}
        with open_stream(web.client.url, None, **shown) as stream:
            stream.until("init")
            closed = other.client.http.request("DELETE", "/console/session", headers={**OWN, "Cookie": cookie})
            assert closed.status_code == 200
            me = {**OWN, "Cookie": cookie}
            eventually(lambda: web.client.http.get("/me", headers=me).status_code == 401, 5, what="the end")
            list(stream.messages(within=5))


@pytest.mark.parametrize("broken", ["_look", "watching"])
def test_stream_left_open_after_sign_out_is_noticed(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    sign_out_elsewhere_ends_streams(settings, db)
    without: dict[str, Any] = {"_look": _read_nothing, "watching": lambda *_: nullcontext()}
    monkeypatch.setattr(WatchedSessions, broken, without[broken])
    with pytest.raises(AssertionError, match="no more than signs of life"):
        sign_out_elsewhere_ends_streams(settings, db)


async def _read_nothing(_: object) -> None:
    pass
