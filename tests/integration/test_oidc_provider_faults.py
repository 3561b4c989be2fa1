"""Identity providers that are away, answer garbage, or give tokens of another sign-in: the person is told, and stays out."""

from collections.abc import Iterator
from typing import Any

import pytest

from app.auth import oidc_sign_in
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.callers import AUTH_ON
from tests.support.db_verbs import DbVerbs
from tests.support.issuer import AUDIENCE, rsa_key
from tests.support.provider import CLIENT, SESSION, ProviderOfTests, SignInBrowser, cookies_of, providing, refused
from tests.support.web import WebInThread, served, until_ready


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


FORGED: dict[str, dict[str, Any]] = {
    "nonce of another sign-in": {"nonce": "A" * 43},
    "no nonce": {"nonce": None},
    "nonce is a list": {"nonce": ["A"]},
    "audience of the API": {"aud": AUDIENCE},
    "another client": {"aud": "another"},
    "several audiences": {"aud": [CLIENT, "another"]},
    "another party": {"aud": [CLIENT, "another"], "azp": "another"},
    "azp of another client": {"azp": "another"},
    "expired": {"exp": 1_000_000_000},
    "another issuer": {"iss": "https://other.example"},
    "no subject": {"sub": None},
    "no expiry": {"exp": None},
    "not yet": {"nbf": 4_000_000_000},
}


@pytest.mark.parametrize("fault", FORGED)
def test_id_token_of_another_sign_in_is_refused(
    web: WebInThread, provider: ProviderOfTests, browser: SignInBrowser, db: DbVerbs, fault: str
) -> None:
    provider.claims_of_id = FORGED[fault]
    assert refused(browser, web.client.url, browser.sign_in(web.client.url)) == oidc_sign_in.NOT_VALID
    assert db.one("SELECT count(*) FROM console_sessions") == 0
    provider.claims_of_id = {"aud": [CLIENT, "another"], "azp": CLIENT}
    assert SESSION in cookies_of(browser.sign_in(web.client.url))


def test_id_token_of_another_key_is_refused(
    web: WebInThread, provider: ProviderOfTests, browser: SignInBrowser
) -> None:
    begun = browser.approve(browser.begin(web.client.url))
    provider.keys = {"rsa": rsa_key()}
    assert refused(browser, web.client.url, browser.call_back(web.client.url, begun)) == oidc_sign_in.NOT_VALID


GARBAGE: list[tuple[int, bytes]] = [
    (200, b""),
    (200, b"no JSON"),
    (200, b"[]"),
    (200, b"{}"),
    (200, b'{"id_token": 7}'),
    (200, b'{"id_token": null, "access_token": {}}'),
    (200, b"[" * 100_000),
    (200, b"\xff\xfe"),
    (200, b'{"id_token": "' + b"x" * (2 << 20) + b'"}'),
    (302, b"https://other.example/token"),
    (500, b'{"error": "server_error"}'),
    (400, b'{"error": 7}'),
    (404, b"<html>"),
]


@pytest.mark.parametrize("answer", GARBAGE, ids=lambda answer: f"{answer[0]} {answer[1][:20]!r}")
def test_garbage_of_the_provider_is_told_as_its_fault(
    web: WebInThread, provider: ProviderOfTests, browser: SignInBrowser, answer: tuple[int, bytes]
) -> None:
    provider.token_instead = answer
    assert refused(browser, web.client.url, browser.sign_in(web.client.url)) == oidc_sign_in.AWAY
    provider.token_instead = (200, b'{"id_token": "a.b.c"}')
    assert refused(browser, web.client.url, browser.sign_in(web.client.url)) == oidc_sign_in.NOT_VALID


def test_provider_that_is_away_is_told_as_such(
    settings: Settings, provider: ProviderOfTests, browser: SignInBrowser
) -> None:
    """Begin no sign-in before the provider was ever reached, and end none while it is away."""
    provider.stop()
    with served(settings.model_copy(update=AUTH_ON | provider.settings)) as web:
        url = web.client.url
        assert refused(browser, url, browser.begin(url, "/runs")) == oidc_sign_in.AWAY
        provider.changed_about = {"token_endpoint": "http://provider.example/token"}
        provider.start()
        assert refused(browser, url, browser.begin(url)) == oidc_sign_in.AWAY
        provider.changed_about = {}
        begun = browser.approve(browser.begin(url))
        assert browser.error(url) is None
        provider.stop()
        assert refused(browser, url, browser.call_back(url, begun)) == oidc_sign_in.AWAY
        provider.start()
        # The keys are asked for again after a second.
        eventually(lambda: SESSION in cookies_of(browser.sign_in(url)), 20, what="the provider")


@pytest.mark.parametrize("methods", [["client_secret_post"], ["client_secret_basic", "client_secret_post"], "nonsense"])
def test_secret_is_shown_as_the_provider_takes_it(
    web: WebInThread, provider: ProviderOfTests, browser: SignInBrowser, methods: Any
) -> None:
    provider.changed_about = {"token_endpoint_auth_methods_supported": methods}
    assert SESSION in cookies_of(browser.sign_in(web.client.url))
    provider.secret = "changed since"
    assert "invalid_client: says the provider" in refused_again(browser, web.client.url)


def refused_again(browser: SignInBrowser, url: str) -> str:
    browser.ask(url, "/console/session", "DELETE")
    return refused(browser, url, browser.sign_in(url))


def test_public_client_signs_in_without_a_secret(settings: Settings, browser: SignInBrowser) -> None:
    with (
        providing(secret="") as provider,
        served(settings.model_copy(update=AUTH_ON | provider.settings)) as web,
    ):
        assert SESSION in cookies_of(browser.sign_in(web.client.url))
