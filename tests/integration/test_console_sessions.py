"""Check the cookie sessions of the console: who may use one, from where, and for how long."""

from collections.abc import Iterator

import httpx
import pytest

from models.core.callers import Role
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.callers import AUTH_ON, bearer, make_key, revoke, web_with_auth
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebInThread, served, until_ready

OWN = {"X-Coordinator-Console": "1", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with web_with_auth(settings) as web:
        yield web


def sign_in(url: str, key: str, **headers: str) -> httpx.Response:
    return httpx.post(f"{url}/console/session", json={"api_key": key}, headers={**OWN, **headers})


def cookie_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.headers["set-cookie"].partition(";")[0]


def ask(url: str, cookie: str, method: str = "GET", path: str = "/me", **headers: str) -> httpx.Response:
    return httpx.request(method, url + path, headers={"Cookie": cookie, **headers})


def test_session_acts_as_its_key_on_every_instance_until_sign_out(
    web: WebInThread, settings: Settings, db: DbVerbs
) -> None:
    url = web.client.url
    with served(settings.model_copy(update=AUTH_ON)) as other:
        until_ready(other)
        for role, owner in ((Role.ADMIN, None), (Role.USER, "ann"), (Role.RUNNER, "ann")):
            answer = sign_in(url, make_key(db, role, owner))
            cookie = cookie_of(answer)
            assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(answer.headers["set-cookie"].split("; "))
            me = ask(other.client.url, cookie, **OWN).json()
            assert (me["role"], me["owner"]) == (role, owner)
            assert me["credential"].startswith("key:crd_")
            assert cookie.partition("=")[2] not in str(db.rows("SELECT CAST(s AS text) FROM console_sessions s"))
            assert ask(url, cookie, "DELETE", "/console/session", **OWN).status_code == 200
            assert ask(url, cookie, **OWN).status_code == 401
            eventually(lambda cookie=cookie: ask(other.client.url, cookie, **OWN).status_code == 401, 5)
        assert db.one("SELECT count(*) FROM console_sessions") == 0


def test_session_serves_pages_of_its_own_origin_only(web: WebInThread, db: DbVerbs) -> None:
    """Reject what another page can make a browser send: the cookie alone, or from another site or origin."""
    url = web.client.url
    host = url.removeprefix("http://")
    key = make_key(db, Role.USER, "ann")
    cookie = cookie_of(sign_in(url, key))
    own, stop = {"X-Coordinator-Console": "1"}, ("POST", "/runs/run_1/stop")
    forged = [{}, {"Sec-Fetch-Site": "same-origin"}, {**own, "Sec-Fetch-Site": "same-site"}]
    forged += [{**own, "Sec-Fetch-Site": "cross-site"}, {**own, "Sec-Fetch-Site": "none"}]
    assert {ask(url, cookie, *stop, **headers).status_code for headers in forged} == {401}
    assert ask(url, cookie, *stop, **own, Origin="http://evil.example").status_code == 401
    assert ask(url, cookie, *stop, **own).status_code == 401
    assert ask(url, cookie, *stop, **own, Origin=f"http://{host}").status_code == 404
    assert ask(url, cookie, *stop, **OWN).status_code == 404
    assert ask(url, cookie, **own).status_code == 200
    for malformed in ("http://[", "http://[::1", "://"):
        assert ask(url, cookie, *stop, **own, Origin=malformed).status_code == 401
    # Over https the prefix is demanded, which no other host can set.
    https = {"Origin": f"https://{host}"}
    assert ask(url, cookie, **OWN, **https).status_code == 401
    assert ask(url, cookie, **OWN, Host="runs.example").status_code == 401
    assert ask(url, f"__Host-{cookie}", **OWN, **https).status_code == 200
    # A key that is sent as well counts alone.
    assert ask(url, cookie, **OWN, **bearer("x")).status_code == 401
    assert sign_in(url, key, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    preflight = {"Origin": "http://localhost:1", "Access-Control-Request-Method": "GET"}
    asked = httpx.options(f"{url}/me", headers={**preflight, "Access-Control-Request-Headers": "x-coordinator-console"})
    assert asked.status_code == 400


def test_session_ends_with_its_key_and_at_its_time(web: WebInThread, db: DbVerbs) -> None:
    url = web.client.url
    kept, revoked = make_key(db, Role.USER, "ann"), make_key(db, Role.USER, "bob")
    first, second = cookie_of(sign_in(url, kept)), cookie_of(sign_in(url, revoked))
    assert [ask(url, cookie, **OWN).status_code for cookie in (first, second)] == [200, 200]
    revoke(db, revoked)
    eventually(lambda: ask(url, second, **OWN).status_code == 401, 5)
    assert sign_in(url, revoked).status_code == 403
    db.rows("UPDATE console_sessions SET expires_at = now() - interval '2 minutes'")
    eventually(lambda: ask(url, first, **OWN).status_code == 401, 5)
    sign_in(url, kept)
    assert db.one("SELECT count(*) FROM console_sessions") == 1


BAD: tuple[tuple[bytes, int], ...] = (
    (b"", 422),
    (b"[]", 422),
    (b"{}", 422),
    (b'{"api_key": 5}', 422),
    (b'{"api_key": ""}', 422),
    (b'{"api_key": "nonsense"}', 401),
    (b'{"api_key": "\\u0000"}', 422),
    (b'{"api_key": "\\ud800"}', 422),
    (b'{"api_key": "crd_0a1b2c3d4e5f_' + b"0" * 64 + b'"}', 403),
    (b'{"api_key": "' + b"x" * 9000 + b'"}', 422),
    (b"x" * 20_000, 413),
)


def test_bad_sign_in_is_refused(web: WebInThread) -> None:
    for body, code in BAD:
        answer = httpx.post(f"{web.client.url}/console/session", content=body, headers=OWN)
        assert (answer.status_code, answer.headers.get("set-cookie")) == (code, None), body


def test_cookie_is_bound_to_host_over_https_and_made_up_ones_are_refused(web: WebInThread, db: DbVerbs) -> None:
    url = web.client.url
    answer = sign_in(url, make_key(db, Role.ADMIN), Origin="https://runs.example")
    assert answer.headers["set-cookie"].startswith("__Host-coordinator_console=")
    assert "Secure" in answer.headers["set-cookie"].split("; ")
    assert ask(url, cookie_of(answer), **OWN).status_code == 200
    for made_up in ("", "x", "A" * 43, "x" * 4000):
        assert ask(url, f"coordinator_console={made_up}", **OWN).status_code == 401


def test_no_session_is_opened_while_authentication_is_off(settings: Settings, db: DbVerbs) -> None:
    with served(settings) as web:
        until_ready(web)
        answer = sign_in(web.client.url, "anything")
        assert (answer.status_code, answer.headers.get("set-cookie")) == (200, None)
        assert db.one("SELECT count(*) FROM console_sessions") == 0
