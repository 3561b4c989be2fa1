"""Tokens of an OIDC issuer: which authenticate a caller, which do not, and the effect of an absent issuer."""

import json
import socket
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from jwt.warnings import InsecureKeyLengthWarning

import runtime.tokens
from app.auth.callers import Callers
from runtime.settings import Settings
from testkit.feed_follower import open_stream
from testkit.waiting import eventually
from tests.support.callers import bearer
from tests.support.issuer import IssuerOfTests, ec_key, forgeries, issuing, rsa_key
from tests.support.web import PROMPT, WebClient, WebInThread, served

VISIBLE = [chr(code) for code in range(0x21, 0x7F)]


@pytest.fixture
def issuer() -> Iterator[IssuerOfTests]:
    with issuing() as issuer:
        yield issuer


@pytest.fixture
def web(settings: Settings, issuer: IssuerOfTests) -> Iterator[WebInThread]:
    with served(settings.model_copy(update=issuer.settings)) as web:
        yield web


def status(client: WebClient, token: str, path: str = "/runs") -> int:
    return client.http.get(path, headers=bearer(token)).status_code


@pytest.mark.parametrize("key_id", ["rsa", "ec"])
def test_issuer_token_authenticates_its_subject(client: WebClient, issuer: IssuerOfTests, key_id: str) -> None:
    """Verify RS256 and ES256; the subject owns what it submits."""
    body = {"type": "start_session", "parameters": PROMPT}
    submitted = client.post("/runs", body, **bearer(issuer.token(key_id, sub="ann")))
    assert submitted.status_code == 201
    session = f"/sessions/{submitted.json()['session_id']}"
    assert client.http.get(session, headers=bearer(issuer.token(key_id))).json()["session"]["owner"] == "ann"
    assert status(client, issuer.token(key_id, sub="bob"), session) == 404


@pytest.mark.parametrize(
    ("given", "runs", "runners", "sessions_of_all"),
    [
        (["admin:full"], 200, 200, True),
        (["runner:execute"], 200, 200, False),
        (["user:runs"], 200, 403, False),
        (["user:sessions", "other:thing"], 200, 403, False),
        ("user:runs other:thing", 200, 403, False),
        (["runner:execute", "user:runs"], 200, 200, False),
        (["admin:full", "user:runs"], 200, 200, True),
        ([], 403, 403, False),
        (["other:thing"], 403, 403, False),
        (["admin"], 403, 403, False),
        ([["admin:full"], 7], 403, 403, False),
        ({"admin:full": True}, 403, 403, False),
        (None, 403, 403, False),
    ],
)
def test_permissions_of_deployed_clients_give_their_roles(
    client: WebClient, issuer: IssuerOfTests, given: Any, runs: int, runners: int, *, sessions_of_all: bool
) -> None:
    """Take the first of admin, runner, user; without a known permission there is no role."""
    client.post("/runs", {"type": "start_session", "parameters": PROMPT}, **bearer(issuer.token(sub="bob")))
    token = issuer.token(permissions=given)
    assert status(client, token) == runs
    assert status(client, token, "/runners") == runners
    if runs == 200:
        seen = client.http.get("/sessions", headers=bearer(token)).json()["sessions"]
        assert bool(seen) is sessions_of_all


def test_claim_names_are_configurable(settings: Settings, issuer: IssuerOfTests) -> None:
    """Read a nested claim, other words and another owner claim; a literal name with dots wins."""
    mapped = {
        "oidc_roles_claim": "realm_access.roles",
        "oidc_roles": ("operators=admin", "people=user"),
        "oidc_owner_claim": "https://example.org/name",
    }
    with served(settings.model_copy(update=issuer.settings | mapped)) as web:
        owner: dict[str, Any] = {"https://example.org/name": "ann@example.org"}
        people = issuer.token(realm_access={"roles": ["people"]}, **owner)
        assert status(web.client, people) == 200
        assert status(web.client, people, "/runners") == 403
        assert status(web.client, issuer.token(realm_access={"roles": ["operators"]}, **owner), "/runners") == 200
        assert status(web.client, issuer.token(**owner | {"realm_access.roles": "operators"}), "/runners") == 200
        assert status(web.client, issuer.token(permissions=["admin:full"], **owner)) == 403
        assert status(web.client, issuer.token(realm_access={"roles": ["people"]})) == 403


@pytest.mark.parametrize("owner", ["", " ", "a\nb", "a\x00b", "x" * 256, 7, ["ann"], None])
def test_unusable_owner_claim_is_refused(settings: Settings, issuer: IssuerOfTests, owner: Any) -> None:
    """Refuse it, since rows without an owner would be visible to all."""
    with served(settings.model_copy(update=issuer.settings | {"oidc_owner_claim": "name"})) as web:
        assert status(web.client, issuer.token(name=owner)) == 403


def test_no_forged_token_is_accepted(web: WebInThread, client: WebClient, issuer: IssuerOfTests) -> None:
    """Answer 403 to each twice, so that nothing was cached; accept the good token before and after."""
    callers: Callers = web.app.state.web.callers
    assert status(client, issuer.token()) == 200
    told = {name: [status(client, token) for _ in range(2)] for name, token in forgeries(issuer).items()}
    assert {name: two for name, two in told.items() if two != [403, 403]} == {}
    assert len(callers._verified) == 1
    assert status(client, issuer.token()) == 200


def test_altered_token_is_refused(client: WebClient, issuer: IssuerOfTests) -> None:
    """Cut, double or change characters anywhere: 401 or 403, never 5xx."""
    good, chance = issuer.token(), Random(7)
    for _ in range(200):
        start = chance.randrange(len(good))
        end = chance.randrange(start, len(good) + 1)
        put_in = "".join(chance.choices(VISIBLE, k=chance.choice((0, 0, 1, 20))))
        token = good[:start] + put_in + good[end:]
        # The last character of a signature holds unused bits.
        if token and token[:-1] != good[:-1]:
            assert status(client, token) in {401, 403}, token


@pytest.mark.parametrize("shown", [b"Bearer a.b\x00.c", b"Bearer \xff.b.c", "Bearer ä.b.c".encode()])
def test_bytes_that_no_token_holds_are_refused(client: WebClient, shown: bytes) -> None:
    """Answer 400 or 401, by the server or by the application."""
    host, _, port = client.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(b"GET /runs HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + shown + b"\r\n\r\n")
        assert connection.recv(4096).split(b" ")[1] in {b"400", b"401"}


def test_cached_token_ends_with_its_expiry(client: WebClient, issuer: IssuerOfTests) -> None:
    """Skip verification of a cached token, but notice its expiry."""
    token = issuer.token(exp=int(time.time()) - 8)
    assert status(client, token) == 200
    eventually(lambda: status(client, token) == 403, 10, what="the end of its leeway")


def test_new_issuer_key_is_fetched_when_token_names_it(
    settings: Settings, issuer: IssuerOfTests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refuse tokens of the old key once the issuer has withdrawn it."""
    monkeypatch.setattr(runtime.tokens, "UNKNOWN_KEY_SECONDS", 0.1)
    with served(settings.model_copy(update=issuer.settings)) as web:
        old = issuer.token()
        assert status(web.client, old) == 200
        issuer.keys = {"next": ec_key()}
        eventually(lambda: status(web.client, issuer.token("next")) == 200, 5, what="the next key")
        assert status(web.client, old) == 403


def test_tokens_with_unknown_keys_do_not_repeat_issuer_requests(client: WebClient, issuer: IssuerOfTests) -> None:
    """Ask the issuer at most every 10 s, however many callers come."""
    assert status(client, issuer.token()) == 200
    before = issuer.asked
    for number in range(20):
        assert status(client, issuer.token(headers={"kid": f"made up {number}"})) == 403
    assert issuer.asked <= before + 1


@pytest.mark.parametrize(
    "instead",
    [
        (500, b""),
        (302, b""),
        (200, b"no JSON"),
        (200, b"[]"),
        (200, b'{"keys": 7}'),
        (200, b"[" * 100_000),
        (200, b'{"keys": [], "x": "' + b"x" * (2 << 20) + b'"}'),
    ],
)
def test_malformed_issuer_answer_keeps_last_keys(
    settings: Settings, issuer: IssuerOfTests, monkeypatch: pytest.MonkeyPatch, instead: tuple[int, bytes]
) -> None:
    monkeypatch.setattr(runtime.tokens, "UNKNOWN_KEY_SECONDS", 0.0)
    with served(settings.model_copy(update=issuer.settings)) as web:
        assert status(web.client, issuer.token()) == 200
        before, issuer.instead = issuer.asked, instead
        assert status(web.client, issuer.token(headers={"kid": "none"})) == 403
        assert issuer.asked > before
        assert status(web.client, issuer.token(sub="somebody new")) == 200


def test_weak_or_unsuitable_issuer_keys_are_not_used(settings: Settings, issuer: IssuerOfTests) -> None:
    """Reject short RSA keys, symmetric secrets, encryption keys and malformed ones."""
    issuer.keys["weak"] = rsa_key(1024)
    _, known = issuer.answer("/keys")
    keys = json.loads(known)["keys"]
    other = {"kty": "oct", "k": "c2VjcmV0", "kid": "secret", "alg": "HS256"}
    for_encryption = next(dict(key) for key in keys if key["kid"] == "rsa") | {"kid": "enc", "use": "enc"}
    issuer.instead = (200, json.dumps({"keys": [*keys, other, for_encryption, {"kty": "RSA"}, None]}).encode())
    with served(settings.model_copy(update=issuer.settings)) as web:
        assert status(web.client, issuer.token()) == 200
        with pytest.warns(InsecureKeyLengthWarning):
            weak = issuer.token("weak")
        assert status(web.client, weak) == 403
        assert status(web.client, issuer.token(headers={"kid": "enc"})) == 403


def test_issuer_outage_refuses_neither_cached_nor_new_tokens(client: WebClient, issuer: IssuerOfTests) -> None:
    seen, unseen = issuer.token(), issuer.token(sub="somebody new")
    assert status(client, seen) == 200
    issuer.stop()
    assert status(client, seen) == 200
    assert status(client, unseen) == 200


def test_requests_wait_for_issuer_that_was_never_reached(settings: Settings) -> None:
    """Answer clients 503, polls 204 and end streams at once until it comes; no caller is accepted before."""
    issuer = IssuerOfTests()
    with served(settings.model_copy(update=issuer.settings)) as web:
        shown = bearer(issuer.token(permissions=["admin:full"]))
        refused = web.client.http.get("/runs", headers=shown)
        assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
        poll = web.client.http.get("/runner/runs", params={"runner_id": "lnch_x", "wait": "0"}, headers=shown)
        assert poll.status_code == 204
        with open_stream(web.client.url, None, **shown) as stream:
            assert stream.response.status == 200
            assert [message.retry for message in stream.messages()] == [2000]
        assert web.client.get("/runs").status_code == 401
        issuer.start()
        try:
            eventually(lambda: web.client.http.get("/runs", headers=shown).status_code == 200, what="the issuer")
        finally:
            issuer.stop()
