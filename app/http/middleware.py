"""Guard, count and label every request: host and origin, schema, metrics, security headers, drain.

Pure ASGI: behind a BaseHTTPMiddleware a long poll never learns that its client has disconnected.
"""

import ipaddress
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import orjson
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.lifecycle.drain import Drain
from app.lifecycle.health import Health
from runtime import metrics

FOREIGN_HOST: Final = b'{"detail":"This host name is not served here; COORDINATOR_ALLOWED_HOSTS adds names"}'
FOREIGN_ORIGIN: Final = (
    b'{"detail":"Requests from this origin are not accepted; COORDINATOR_CORS_ORIGINS adds origins"}'
)
FOREIGN_PAGE: Final = (
    b'{"detail":"Requests that a page of another site makes without CORS (images, frames, links) are not accepted"}'
)
# Other sites may link to these: they start nothing.
LINKABLE_PATHS: Final = frozenset({"/docs", "/openapi.json"})
# Bounds of the cache of Host and Origin pairs: number of pairs, length of one.
MOST_KNOWN: Final = 1024
LONGEST_KNOWN: Final = 512
PATHS_WITHOUT_TABLES: Final = ("/health", "/metrics", "/docs", "/static/", "/openapi.json")
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
    "Retry-After",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
)
LOOPBACK_ORIGIN: Final = r"https?://(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?"

# Answers are never framed, sniffed or named as referrer; the reference for people runs its own scripts only.
SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
PAGE_POLICY: Final = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"frame-ancestors 'none'"
)
PAGE_HEADERS: Final = (*SECURITY_HEADERS[:3], (b"content-security-policy", PAGE_POLICY))
PAGES: Final = ("/docs", "/static/")

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Cors(CORSMiddleware):
    """CORS policy: loopback origins may call by default, but only while authentication is off."""

    def __init__(self, app: ASGIApp, origins: Iterable[str] | None, auth_required: Callable[[], bool]) -> None:
        super().__init__(
            app,
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


class HostOriginGuard:
    """Middleware that rejects foreign Host and Origin headers, and requests of other sites without Origin, while
    authentication is off: no web page may start jobs on localhost.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Iterable[str],
        origins: Iterable[str],
        auth_required: Callable[[], bool] = lambda: False,
    ) -> None:
        self._app = app
        self._auth_required = auth_required
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._remembered = lru_cache(maxsize=MOST_KNOWN)(self._decide)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith("/health") and not self._auth_required():
            headers = Headers(scope=scope)
            host, origin = headers.get("host", ""), headers.get("origin", "")
            is_short = len(host) + len(origin) <= LONGEST_KNOWN
            refusal = self._remembered(host, origin) if is_short else self._decide(host, origin)
            if refusal is None and not origin and _is_foreign_page(scope, headers):
                refusal = FOREIGN_PAGE
            if refusal is not None:
                await _send_json(send, 403, refusal)
                return
        await self._app(scope, receive, send)

    def _decide(self, host: str, origin: str) -> bytes | None:
        if not self._is_ours(_host_name(f"//{host}")):
            return FOREIGN_HOST
        return FOREIGN_ORIGIN if origin and not self._may_call(origin) else None

    def _may_call(self, origin: str) -> bool:
        return origin.lower().rstrip("/") in self._origins or self._is_ours(_host_name(origin))

    def _is_ours(self, name: str | None) -> bool:
        return name is not None and (name in self._hosts or "*" in self._hosts or _is_loopback(name))


def _is_foreign_page(scope: Scope, headers: Headers) -> bool:
    """Return whether a page of another site makes this request, which has no Origin since it is not a CORS one.

    Pages of other ports of a loopback address are of the same site and may call anyway. Under another name, same-site
    is any neighbour of a common domain. Browsers send `Sec-Fetch-Site` to loopback addresses and over https.
    """
    site = headers.get("sec-fetch-site")
    if site in {None, "same-origin", "none"}:
        return False
    if site == "same-site" and _is_loopback(_host_name(f"//{headers.get('host', '')}") or ""):
        return False
    is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return not (is_link and scope["method"] == "GET" and scope["path"] in LINKABLE_PATHS)


def _host_name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class SchemaGuard:
    """Middleware that rejects (503) requests that need tables while the schema is known to be older than this version:
    they would fail midway.

    `/health/ready` reports the same, so that a balancer sends none.
    """

    def __init__(self, app: ASGIApp, health: Health) -> None:
        self._app = app
        self._health = health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and (fault := self._health.schema_fault)
            and not scope["path"].startswith(PATHS_WITHOUT_TABLES)
        ):
            await _send_json(send, 503, orjson.dumps({"detail": fault}), (b"retry-after", b"5"))
            return
        await self._app(scope, receive, send)


class MetricsMiddleware:
    """Middleware that counts and times requests by route, and adds headers: those for security, and during a drain
    `Connection: close`, so that clients return to another replica.
    """

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = PAGE_HEADERS if scope["path"].startswith(PAGES) else SECURITY_HEADERS
                message["headers"] = [*message.get("headers", ()), *more]
                if self._drain.draining:
                    message["headers"].append((b"connection", b"close"))
                # Never make a label of client input: unknown paths and methods are counted together.
                route = getattr(scope.get("route"), "path", "other")
                method = scope["method"] if scope["method"] in METHODS else "other"
                metrics.REQUESTS.labels(method, route, message["status"]).inc()
                metrics.REQUEST_SECONDS.labels(route).observe(time.perf_counter() - begun)
            await send(message)

        await self._app(scope, receive, send_and_count)


async def _send_json(send: Send, status: int, body: bytes, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
