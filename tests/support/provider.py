"""Identity provider of a test: a page to sign in on, codes that it exchanges once, and PKCE that it checks itself."""

import json
import secrets
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

import httpx

from tests.support.issuer import IssuerOfTests

CLIENT = "console of tests"
SECRET = "se:cret/%"
# Address of a console that no test reaches there: its own is another one.
CONSOLE = "http://localhost:1/console"
SESSION = "coordinator_console"


@dataclass
class ProviderOfTests(IssuerOfTests):
    """Issuer at which accounts sign in. ``claims_of_id`` changes its ID tokens, ``token_instead`` the whole answer."""

    console_url: str = CONSOLE
    secret: str = SECRET
    subject: str = "ann"
    permissions: Any = field(default_factory=lambda: ["user:runs"])
    claims_of_id: dict[str, Any] = field(default_factory=dict)
    token_instead: tuple[int, bytes] | None = None
    # Replace parts of the discovery document.
    changed_about: dict[str, Any] = field(default_factory=dict)
    # Accept a code again, as no provider should.
    reuses_codes: bool = False
    exchanged: int = 0
    _asked_for: dict[str, dict[str, str]] = field(default_factory=dict)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of a coordinator at whose console its accounts sign in."""
        client = {"oidc_client_id": CLIENT, "oidc_client_secret": self.secret, "console_url": self.console_url}
        return {**super().settings, **client}

    def about(self) -> dict[str, Any]:
        endpoints = {"authorization_endpoint": f"{self.url}/authorize", "token_endpoint": f"{self.url}/token"}
        return super().about() | endpoints | self.changed_about

    def answer(self, path: str) -> tuple[int, bytes]:
        parts = urlsplit(path)
        query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
        match parts.path:
            case "/authorize":
                return self._authorize(query)
            case "/approve":
                return self._approve(query["request"])
            case "/deny":
                return self._return(query["request"], error="access_denied", error_description="Not <b>you</b>")
        return super().answer(path)

    def answer_form(self, path: str, form: str, authorization: str) -> tuple[int, bytes]:
        given = {name: values[0] for name, values in parse_qs(form, strict_parsing=True).items()}
        if self.token_instead is not None:
            return self.token_instead
        fault = self._fault(given, authorization)
        if path != "/token" or fault:
            return 400, json.dumps({"error": fault, "error_description": "says the provider"}).encode()
        asked = self._codes[given["code"]] if self.reuses_codes else self._codes.pop(given["code"])
        self.exchanged += 1
        who: dict[str, Any] = {"sub": self.subject, "permissions": self.permissions}
        identity = who | {"aud": CLIENT, "nonce": asked["nonce"]} | self.claims_of_id
        return 200, json.dumps(
            {"token_type": "Bearer", "id_token": self.token(**identity), "access_token": self.token(**who)}
        ).encode()

    def _authorize(self, query: dict[str, str]) -> tuple[int, bytes]:
        wanted = {
            "response_type": "code",
            "client_id": CLIENT,
            "redirect_uri": f"{self.console_url}/callback",
            "code_challenge_method": "S256",
        }
        if any(query.get(name) != value for name, value in wanted.items()):
            return 400, b"not a request of this client"
        if "openid" not in query["scope"].split() or any(len(query[name]) < 43 for name in ("state", "nonce")):
            return 400, b"no scope, state or nonce"
        request = secrets.token_hex(8)
        self._asked_for[request] = query
        page = (
            "<!doctype html><title>Provider</title><h1>Provider</h1>"
            f'<a href="/approve?request={request}">Go on as {self.subject}</a> <a href="/deny?request={request}">No</a>'
        )
        return 200, page.encode()

    def _approve(self, request: str) -> tuple[int, bytes]:
        code = secrets.token_urlsafe(24)
        self._codes[code] = self._asked_for[request]
        return self._return(request, code=code, iss=self.url)

    def _return(self, request: str, **answer: str) -> tuple[int, bytes]:
        asked = self._asked_for.pop(request)
        return 302, f"{asked['redirect_uri']}?{urlencode({**answer, 'state': asked['state']})}".encode()

    def _fault(self, given: Mapping[str, str], authorization: str) -> str:
        shown = [given.get("client_id"), given.get("client_secret", "")]
        if authorization:
            shown = [unquote(part) for part in b64decode(authorization.removeprefix("Basic ")).decode().split(":")]
        if shown != [CLIENT, self.secret]:
            return "invalid_client"
        asked = self._codes.get(given["code"])
        challenge = urlsafe_b64encode(sha256(given["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        if asked is None or given["grant_type"] != "authorization_code":
            return "invalid_grant"
        if asked["redirect_uri"] != given["redirect_uri"] or asked["code_challenge"] != challenge:
            return "invalid_grant"
        return ""


@contextmanager
def providing(**fields: Any) -> Iterator[ProviderOfTests]:
    provider = ProviderOfTests(**fields)
    provider.start()
    try:
        yield provider
    finally:
        provider.stop()


@dataclass
class SignInBrowser:
    """Client that keeps cookies and follows the sign-in step by step; cookies of a host are for all its ports."""

    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30, trust_env=False))

    def begin(self, url: str, return_to: str | None = None) -> httpx.Response:
        query = {} if return_to is None else {"return_to": return_to}
        return self.http.get(f"{url}/console/sign-in", params=query)

    def approve(self, begun: httpx.Response, link: str = "approve") -> dict[str, str]:
        """Follow a link of the provider's page; return the query of the callback that it leads to."""
        assert begun.status_code == 302, begun.text
        page = self.http.get(begun.headers["location"])
        assert page.status_code == 200, page.text
        target = page.text.partition(f'href="/{link}')[2].partition('"')[0]
        back = self.http.get(f"{begun.headers['location'].partition('/authorize')[0]}/{link}{target}")
        return dict(parse_qsl(urlsplit(back.headers["location"]).query))

    def call_back(self, url: str, query: Mapping[str, str]) -> httpx.Response:
        return self.http.get(f"{url}/console/callback", params=dict(query))

    def sign_in(self, url: str, return_to: str | None = None) -> httpx.Response:
        return self.call_back(url, self.approve(self.begin(url, return_to)))

    def ask(self, url: str, path: str = "/me", method: str = "GET") -> httpx.Response:
        """Make a call as a page of the console does."""
        own = {"X-Coordinator-Console": "1", "Sec-Fetch-Site": "same-origin"}
        return self.http.request(method, url + path, headers=own)

    def error(self, url: str) -> str | None:
        """Return the error that the page to sign in on shows."""
        error: str | None = self.ask(url, "/console/sign-in/methods").json()["error"]
        return error

    def close(self) -> None:
        self.http.close()


def cookies_of(answer: httpx.Response) -> dict[str, str]:
    """Return the cookies that an answer sets, with their attributes."""
    return dict(cookie.split("=", 1) for cookie in answer.headers.get_list("set-cookie"))


def refused(browser: SignInBrowser, url: str, answer: httpx.Response) -> str:
    """Return the text of a sign-in that opened no session and led back to the console."""
    assert (answer.status_code, answer.headers["location"].startswith(f"{CONSOLE}/")) == (302, True)
    assert SESSION not in cookies_of(answer)
    assert browser.ask(url).status_code == 401
    return str(browser.error(url))
