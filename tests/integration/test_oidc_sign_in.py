"""Sign-in to the console by OIDC: on any instance, once, for the browser that began it, with an answer for each fault."""

import json
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import httpx
import pytest

from app.auth import oidc_sign_in
from runtime.settings import Settings
from tests.support.callers import AUTH_ON
from tests.support.contenders import run_in_threads
from tests.support.db_verbs import DbVerbs
from tests.support.issuer import AUDIENCE
from tests.support.provider import CONSOLE, SESSION, ProviderOfTests, SignInBrowser, cookies_of, providing, refused
from tests.support.web import WebInThread, served, until_ready

ATTEMPT = "coordinator_sign_in"


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


def test_sign_in_begins_at_one_instance_and_ends_at_another(
    web: WebInThread, settings: Settings, provider: ProviderOfTests, browser: SignInBrowser, db: DbVerbs
) -> None:
    """Open a session with the role and owner of a token of that issuer, and return to the page that was asked for."""
    first = web.client.url
    with served(settings.model_copy(update=AUTH_ON | provider.settings)) as other:
        until_ready(other)
        begun = browser.begin(first, "/runs?status=%5B%22failed%22%5D")
        assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=600"} <= set(cookies_of(begun)[ATTEMPT].split("; "))
        answer = browser.call_back(other.client.url, browser.approve(begun))
        assert (answer.status_code, answer.headers["cache-control"]) == (302, "no-store")
        assert answer.headers["location"] == f"{CONSOLE}/runs?status=%5B%22failed%22%5D"
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookies_of(answer)[SESSION].split("; "))
        assert set(browser.http.cookies) == {SESSION}
        for url in (first, other.client.url):
            me = browser.ask(url).json()
            assert (me["role"], me["owner"], me["credential"]) == ("user", "ann", "subject:ann")
        stored = str(db.rows("SELECT CAST(s AS text) FROM console_sign_ins s"))
        assert cookies_of(answer)[SESSION].partition(";")[0] not in stored
        assert browser.ask(first, "/console/session", "DELETE").status_code == 200
        assert browser.ask(first).status_code == 401


@pytest.mark.parametrize(
    ("permissions", "role"), [(["admin:full"], "admin"), (["runner:execute"], "runner"), ("user:runs", "user")]
)
def test_role_is_that_of_a_token(
    web: WebInThread, provider: ProviderOfTests, browser: SignInBrowser, permissions: Any, role: str
) -> None:
    provider.permissions = permissions
    browser.sign_in(web.client.url)
    assert browser.ask(web.client.url).json()["role"] == role


def test_account_without_role_is_told_so(
    web: WebInThread, provider: ProviderOfTests, browser: SignInBrowser, db: DbVerbs
) -> None:
    provider.permissions = ["other:thing"]
    assert refused(browser, web.client.url, browser.sign_in(web.client.url)) == oidc_sign_in.NO_ROLE
    assert db.one("SELECT count(*) FROM console_sessions") == 0


def test_role_comes_from_the_access_token_where_the_settings_say_so(
    settings: Settings, provider: ProviderOfTests, browser: SignInBrowser
) -> None:
    """Ask for a token of our audience, and require that it is of the same subject as the ID token."""
    by_access_token = AUTH_ON | provider.settings | {"oidc_sign_in_claims": "access_token"}
    provider.claims_of_id = {"permissions": None}
    with served(settings.model_copy(update=by_access_token)) as web:
        begun = browser.begin(web.client.url)
        assert httpx.URL(begun.headers["location"]).params["audience"] == AUDIENCE
        assert refused(browser, web.client.url, browser.call_back(web.client.url, {"code": "x"}))
        browser.call_back(web.client.url, browser.approve(begun))
        assert browser.ask(web.client.url).json()["owner"] == "ann"
        browser.ask(web.client.url, "/console/session", "DELETE")
        provider.claims_of_id = {"sub": "bob"}
        assert refused(browser, web.client.url, browser.sign_in(web.client.url)) == oidc_sign_in.NOT_VALID


IN_CONSOLE = ["/", "/runs", "/runs?q=a%2Fb&status=x", "/runs/run_1", "/a//b", "/a%5Cb", "/.hidden", "/a:b@c"]
ELSEWHERE = [
    "//evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "https://evil.example",
    "javascript:alert(1)",
    "runs",
    "/../docs",
    "/a/../../docs",
    "/%2e%2E/docs",
    "/./a",
    "/a\r\nSet-Cookie: x=y",
    "/a\nb",
    "/a\tb",
    "/a\0b",
    "/a#b",
    "/a b",
    "/ä",
    "/\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    "/" + "a" * 2000,
]


@pytest.mark.parametrize("place", IN_CONSOLE)
def test_sign_in_returns_into_the_console(web: WebInThread, browser: SignInBrowser, place: str) -> None:
    answer = browser.sign_in(web.client.url, place)
    assert answer.headers["location"] == f"{CONSOLE}{place}"


@pytest.mark.parametrize("place", ELSEWHERE)
def test_sign_in_returns_nowhere_else(web: WebInThread, browser: SignInBrowser, place: str) -> None:
    """Refuse such a place when the sign-in begins, and take it for none in a cookie that was altered."""
    begun = browser.begin(web.client.url, place)
    assert begun.status_code == 422
    assert begun.json()["detail"][0]["loc"] == ["query", "return_to"]
    good = browser.begin(web.client.url, "/runs")
    secret = browser.http.cookies[ATTEMPT].partition(".")[0]
    browser.http.cookies.clear()
    browser.http.cookies.set(ATTEMPT, f"{secret}.{oidc_sign_in.packed(place)}")
    answer = browser.call_back(web.client.url, browser.approve(good))
    assert answer.headers["location"] == f"{CONSOLE}/"


def test_callback_that_this_browser_did_not_begin_is_refused(
    web: WebInThread, provider: ProviderOfTests, browser: SignInBrowser, db: DbVerbs
) -> None:
    """Ask the provider for nothing then: a foreign code must sign no other person in."""
    url = web.client.url
    foreign = browser.approve(browser.begin(url))
    for cookie in (None, "", ".", "x", "x.y", "x.%", "a" * 5000):
        browser.http.cookies.clear()
        if cookie is not None:
            browser.http.headers["Cookie"] = f"{ATTEMPT}={cookie}"
        assert browser.call_back(url, foreign).headers["location"] == f"{CONSOLE}/"
    browser.http.headers.pop("Cookie")
    own = browser.approve(browser.begin(url))
    for wrong in (foreign, {**own, "state": foreign["state"]}, {**own, "state": ""}, {"code": own["code"]}, {}):
        assert refused(browser, url, browser.call_back(url, wrong)) == oidc_sign_in.NOT_BEGUN
    assert refused(browser, url, browser.call_back(url, {**own, "iss": "https://other.example"}))
    assert refused(browser, url, browser.call_back(url, {**own, "code": ""})) == oidc_sign_in.NOT_VALID
    assert refused(browser, url, browser.call_back(url, {**own, "code": "x" * 5000})) == oidc_sign_in.NOT_VALID
    assert (provider.exchanged, db.one("SELECT count(*) FROM console_sessions")) == (0, 0)
    assert SESSION in cookies_of(browser.call_back(url, own))


def test_callback_signs_in_once(
    web: WebInThread, settings: Settings, provider: ProviderOfTests, browser: SignInBrowser, db: DbVerbs
) -> None:
    """Refuse it again at every instance, also if the provider accepts a code again; of eight at once, serve one."""
    provider.reuses_codes = True
    with served(settings.model_copy(update=AUTH_ON | provider.settings)) as other:
        until_ready(other)
        urls = [web.client.url, other.client.url]
        begun = browser.approve(browser.begin(urls[0]))
        cookie = {"Cookie": f"{ATTEMPT}={browser.http.cookies[ATTEMPT]}"}

        def contend(place: int) -> bool:
            answer = httpx.get(f"{urls[place % 2]}/console/callback", params=begun, headers=cookie)
            return SESSION in cookies_of(answer)

        assert sum(run_in_threads(8, contend)) == 1
        assert provider.exchanged == 8
        assert db.one("SELECT count(*) FROM console_sessions") == 1
        provider.reuses_codes = False
        for url in urls:
            again = httpx.get(f"{url}/console/callback", params=begun, headers=cookie)
            assert SESSION not in cookies_of(again)


def test_words_of_the_provider_are_shown_for_a_minute_to_that_browser_alone(
    web: WebInThread, browser: SignInBrowser
) -> None:
    """Take them from callbacks that this browser began only: a link must put no text on the page."""
    url = web.client.url
    denied = browser.approve(browser.begin(url, "/runs"), "deny")
    unasked = SignInBrowser()
    assert "you" not in refused(unasked, url, unasked.call_back(url, denied))
    unasked.close()
    answer = browser.call_back(url, denied)
    assert {"HttpOnly", "SameSite=strict", "Max-Age=60"} <= set(cookies_of(answer)[f"{ATTEMPT}_error"].split("; "))
    assert refused(browser, url, answer).endswith("access_denied: Not <b>you</b>")
    hostile = {"error": "a\r\nb\x00\u202e" + "x" * 5000, "state": denied["state"]}
    shown = refused(browser, url, browser.call_back(url, hostile))
    assert "a  b" in shown
    assert shown.isprintable()
    assert len(shown) < 400
    browser.begin(url)
    assert browser.error(url) is None


def test_session_ends_with_the_token_and_after_twelve_hours(
    web: WebInThread, provider: ProviderOfTests, browser: SignInBrowser, db: DbVerbs
) -> None:
    lasts = "SELECT extract(epoch FROM max(expires_at) - now()) FROM console_sessions"
    provider.claims_of_id = {"exp": int(time.time()) + 300}
    browser.sign_in(web.client.url)
    assert 200 < db.one(lasts) <= 311
    provider.claims_of_id = {"exp": int(time.time()) + 100 * 3600}
    browser.sign_in(web.client.url)
    assert 11 * 3600 < db.one(lasts) <= 12 * 3600


def test_cookies_are_bound_to_the_host_over_https(
    settings: Settings, provider: ProviderOfTests, browser: SignInBrowser
) -> None:
    provider.console_url = "https://runs.example/prefix/console"
    with served(settings.model_copy(update=AUTH_ON | provider.settings)) as web:
        begun = browser.begin(web.client.url, "/runs")
        (attempt,) = [cookie for cookie in begun.headers.get_list("set-cookie") if f"__Host-{ATTEMPT}=" in cookie]
        assert {"Secure", "Path=/"} <= set(attempt.split("; "))
        query = browser.approve(begun)
        answer = httpx.get(
            f"{web.client.url}/console/callback", params=query, headers={"Cookie": attempt.partition(";")[0]}
        )
        assert answer.headers["location"] == "https://runs.example/prefix/console/runs"
        assert f"__Host-{SESSION}" in cookies_of(answer)


def test_any_query_is_answered_without_a_fault(web: WebInThread, browser: SignInBrowser) -> None:
    """Send bytes of every kind: a redirect or a refusal, never 5xx, and no header of their making."""
    chance = Random(11)
    names = ("state", "code", "error", "error_description", "iss", "return_to", "x")
    pieces = [
        "%00",
        "%0d%0aSet-Cookie:%20a=b",
        "%ff",
        "%ED%A0%80",
        "%",
        "%zz",
        "+",
        "&",
        "=",
        "//",
        "%5c",
        "a",
        "\u00e4",
    ]
    browser.begin(web.client.url)
    for _ in range(150):
        query = "&".join(f"{name}={''.join(chance.choices(pieces, k=4))}" for name in chance.choices(names, k=4))
        for path in ("/console/sign-in", "/console/callback", "/console/sign-in/methods"):
            answer = browser.http.get(f"{web.client.url}{path}?{query}")
            assert answer.status_code in {200, 302, 422}, (path, query)
            assert {name.removeprefix("__Host-") for name in cookies_of(answer)} <= {ATTEMPT, f"{ATTEMPT}_error"}


def test_sign_in_that_is_not_set_up_is_not_offered(settings: Settings, browser: SignInBrowser) -> None:
    with served(settings.model_copy(update=AUTH_ON)) as web:
        methods = browser.ask(web.client.url, "/console/sign-in/methods")
        assert json.loads(methods.text) == {"api_key": True, "oidc": None, "error": None}
        for path in ("/console/sign-in", "/console/callback"):
            assert browser.ask(web.client.url, path).status_code == 404
        wrong = browser.http.post(f"{web.client.url}/console/sign-in")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")


def test_offer_names_the_issuer(web: WebInThread, provider: ProviderOfTests, browser: SignInBrowser) -> None:
    methods = browser.ask(web.client.url, "/console/sign-in/methods").json()
    assert methods == {"api_key": True, "oidc": {"issuer": provider.url}, "error": None}
