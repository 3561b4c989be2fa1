"""Decide which web pages may call, by the headers Host, Origin and Sec-Fetch, and tell browsers so."""

import ipaddress
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Scope

from app.http.headers import VARY, header_of

FOREIGN_HOST: Final = b'{"detail":"This host name is not served here; COORDINATOR_ALLOWED_HOSTS adds names"}'
FOREIGN_ORIGIN: Final = (
    b'{"detail":"Requests from this origin are not accepted; COORDINATOR_CORS_ORIGINS adds origins"}'
)
FOREIGN_PAGE: Final = (
    b'{"detail":"Requests that a page of another site makes without CORS (images, frames, links) are not accepted"}'
)
# Other sites may link to these: they start nothing.
LINKABLE_PATHS: Final = frozenset({"/", "/docs", "/openapi.json", "/console"})
# Bounds of the cache of Host and Origin pairs: number of pairs, length of one.
MOST_KNOWN: Final = 1024
LONGEST_KNOWN: Final = 512
# Headers of this API, and those that tracing libraries and HTTP clients of browsers add by themselves.
ALLOWED_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "X-API-Key",
    "Baggage",
    "Cache-Control",
    "Traceparent",
    "Tracestate",
    "X-Request-ID",
)
EXPOSED_HEADERS: Final = (
    "Coordinator-Instance",
    "Feed-Cursor",
    "Retry-After",
    "X-Request-Id",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
)
LOOPBACK_ORIGIN: Final = r"https?://(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?"


class Cors(CORSMiddleware):
    """CORS policy: loopback origins may call by default, but only while authentication is off.

    Not used as middleware: answers are given to it.
    """

    def __init__(self, origins: Iterable[str] | None, auth_required: Callable[[], bool]) -> None:
        super().__init__(
            Response(),
            allow_origins=list(origins or ()),
            allow_origin_regex=LOOPBACK_ORIGIN if origins is None else None,
            allow_methods=["*"],
            allow_headers=list(ALLOWED_HEADERS),
            expose_headers=list(EXPOSED_HEADERS),
        )
        self._auth_required = auth_required

    def is_allowed_origin(self, origin: str) -> bool:
        if self.allow_origin_regex is not None and self._auth_required():
            return False
        return super().is_allowed_origin(origin)

    def preflight(self, scope: Scope, origin: str | None) -> Response | None:
        """Return the answer to a preflight; None for any other request."""
        if origin is None or scope["method"] != "OPTIONS":
            return None
        headers = Headers(scope=scope)
        return self.preflight_response(headers) if "access-control-request-method" in headers else None

    def add_headers(self, response: Response, origin: str | None) -> None:
        if origin is None:
            response.raw_headers.append(VARY)
            return
        response.headers.update(self.simple_headers)
        if not self.allow_all_origins and self.is_allowed_origin(origin):
            self.allow_explicit_origin(response.headers, origin)
        else:
            response.headers.add_vary_header("Origin")


class HostOriginGuard:
    """Refuses foreign Host and Origin headers, and requests of other sites without Origin, while authentication is off:
    no web page may start jobs on localhost.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        origins: Iterable[str],
        auth_required: Callable[[], bool] = lambda: False,
        *,
        own_name: str = "",
    ) -> None:
        self._auth_required = auth_required
        self._own_name = own_name.lower()
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._remembered = lru_cache(maxsize=MOST_KNOWN)(self._decide)

    def refusal(self, scope: Scope) -> bytes | None:
        """Return the body of the 403; None for a request that may pass."""
        if scope["path"].startswith("/health") or self._auth_required():
            return None
        host, origin = header_of(scope, b"host") or "", header_of(scope, b"origin") or ""
        is_short = len(host) + len(origin) <= LONGEST_KNOWN
        refusal = self._remembered(host, origin) if is_short else self._decide(host, origin)
        if refusal is FOREIGN_HOST and not origin and scope["path"].startswith("/metrics") and self._is_scraped(host):
            refusal = None
        if refusal is None and not origin and _is_foreign_page(scope, host):
            return FOREIGN_PAGE
        return refusal

    def _decide(self, host: str, origin: str) -> bytes | None:
        if not self._is_ours(host_name(f"//{host}")):
            return FOREIGN_HOST
        return FOREIGN_ORIGIN if origin and not self._may_call(origin) else None

    def _may_call(self, origin: str) -> bool:
        return origin.lower().rstrip("/") in self._origins or self._is_ours(host_name(origin))

    def _is_scraped(self, host: str) -> bool:
        """Return whether scrapers find this process by that name: by its address, or as /metrics/targets lists it. A
        name of a foreign page that was bent to us is neither.
        """
        return _is_address(host) or host_name(f"//{host}") == self._own_name

    def _is_ours(self, name: str | None) -> bool:
        return name is not None and (name in self._hosts or "*" in self._hosts or is_loopback(name))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host_name(f"//{host}") or "")
    except ValueError:
        return False
    return True


def _is_foreign_page(scope: Scope, host: str) -> bool:
    """Return whether a page of another site makes this request, which has no Origin since it is not a CORS one.

    Pages of other ports of a loopback address are of the same site and may call anyway. Under another name, same-site
    is any neighbour of a common domain. Browsers send `Sec-Fetch-Site` to loopback addresses and over https.
    """
    site = header_of(scope, b"sec-fetch-site")
    if site in {None, "same-origin", "none"}:
        return False
    if site == "same-site" and is_loopback(host_name(f"//{host}") or ""):
        return False
    is_link = header_of(scope, b"sec-fetch-mode") == "navigate" and header_of(scope, b"sec-fetch-dest") == "document"
    is_linkable = scope["path"] in LINKABLE_PATHS or scope["path"].startswith("/console/")
    return not (is_link and scope["method"] == "GET" and is_linkable)


def host_name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
