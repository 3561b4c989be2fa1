"""HTTP transport with failover: a call goes to the next address when one fails.

Only a coordinator's own response counts. One with the header Coordinator-Instance is its own. Without the header (a
coordinator of the previous release sends none) an error counts if it is a JSON object with a `detail` other than a web
framework's own `Not Found`, and a success if it is JSON that holds a field that the call expects. Everything else, such
as a proxy's 404, 401, 413 or page, counts as unreachable.
"""

import json
import re
import secrets
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from httpx_sse import ServerSentEvent, aconnect_sse

from coordinator_client.errors import Refused, Unreachable

INSTANCE_HEADER: Final = "Coordinator-Instance"
REQUEST_ID_HEADER: Final = "X-Request-Id"
CONNECT_SECONDS = 5.0
WRITE_SECONDS = 30.0

# Marks a call as a poll, which is answered with 204 when nothing came.
_POLLED = "stop_sessions"

# Errors of a broken connection. A kept-alive one that the server had just closed looks like this, so the same address
# gets one more try.
_BROKEN = (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError)


class Transport:
    """Sender of calls: first to the address that answered last, then to the others in turn.

    A call may therefore arrive twice: everything sent through here must be harmless to repeat.
    """

    def __init__(self, urls: Sequence[str], *, token: str | None = None, ca_file: str = "") -> None:
        if not urls:
            raise ValueError("at least one coordinator address is needed")
        self.urls = tuple(_checked(url) for url in urls)
        self._current = 0
        # Number of calls that a coordinator has answered.
        self.answers = 0
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Made once: loading certificates is slow.
        self._trust = _trust(ca_file)
        self._http = self._client()

    @property
    def url(self) -> str:
        return self.urls[self._current]

    async def close(self) -> None:
        await self._http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = 30.0,
        expects: Sequence[str] = (),
    ) -> Any:
        """Call each address once until one answers; return the JSON of its response, None for 204.

        `seconds` is the time that each address has to answer, `expects` the fields of which a success holds at least
        one. Every try of a call has one `X-Request-Id`, which errors name. Raises Refused for an error response (a 5xx
        only when no other address did better) and Unreachable when no address answered as a coordinator does.
        """
        request_id = secrets.token_hex(8)
        request = {
            "method": method,
            "params": _present(query),
            "content": None if body is None else encode(body),
            "headers": {
                REQUEST_ID_HEADER: request_id,
                **(headers or {}),
                **({} if body is None else {"Content-Type": "application/json"}),
            },
            "timeout": httpx.Timeout(seconds, connect=CONNECT_SECONDS, write=WRITE_SECONDS, pool=None),
        }
        causes: dict[str, str] = {}
        foreign: list[_NotACoordinator] = []
        server_error: Refused | None = None
        may_have_arrived = False
        start = self._current
        for offset in range(len(self.urls)):
            at = (start + offset) % len(self.urls)
            try:
                answer = _read(await self._send(self.urls[at] + path, request), expects)
            except _NotACoordinator as other:
                foreign.append(other)
                causes[self.urls[at]] = str(other)
                may_have_arrived = True
            except httpx.HTTPError as error:
                causes[self.urls[at]] = _reason(error)
                may_have_arrived = may_have_arrived or not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            except Refused as refused:
                self.answers += 1
                if refused.status < 500:
                    self._current = at
                    raise
                server_error = refused
            else:
                self.answers += 1
                self._current = at
                return answer
        raise server_error or _unreachable(causes, foreign, request_id if may_have_arrived else None)

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        path: str,
        *,
        query: Mapping[str, Any],
        headers: Mapping[str, str],
        silence_seconds: float,
    ) -> AsyncGenerator[AsyncIterator[ServerSentEvent], None]:
        """Open the event stream of one address: an iterator over complete frames, also those without data.

        The connection is closed with the block. Raises Refused for an error response; Unreachable when there is no
        stream, or when it breaks or is silent for `silence_seconds`.
        """
        timeout = httpx.Timeout(silence_seconds, connect=CONNECT_SECONDS, write=WRITE_SECONDS, pool=None)
        try:
            # Use a separate client: httpx keeps a connection whose request is cancelled just when it is made, open and
            # unused, until its client is closed.
            async with (
                self._client() as http,
                aconnect_sse(
                    http,
                    "GET",
                    url + path,
                    params=_present(query),
                    headers={REQUEST_ID_HEADER: secrets.token_hex(8), **headers},
                    timeout=timeout,
                ) as source,
            ):
                await _expect_stream(source.response)
                async with aclosing(source.aiter_sse()) as frames:
                    yield frames
        except _NotACoordinator as other:
            raise _unreachable({url: str(other)}, [other]) from None
        except httpx.HTTPError as error:
            raise Unreachable({url: _reason(error)}) from error

    def _client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=30)
        try:
            return httpx.AsyncClient(headers=self._headers, limits=limits, verify=self._trust)
        except (httpx.InvalidURL, ImportError, ValueError) as error:
            raise ValueError(f"HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or NO_PROXY cannot be used: {error}") from None

    async def _send(self, url: str, request: dict[str, Any]) -> httpx.Response:
        try:
            return await self._http.request(url=url, **request)
        except _BROKEN:
            return await self._http.request(url=url, **request)


class _NotACoordinator(Exception):
    def __init__(self, response: httpx.Response, why: str) -> None:
        self.status = response.status_code
        self.retry_after = _retry_after(response)
        words = _words(response)
        super().__init__(f"HTTP {self.status}, {why}{f': {words}' if words else ''}")


def encode(body: Any) -> bytes:
    """Encode as ASCII JSON: a lone surrogate stays an escape, where UTF-8 has no bytes for it."""
    return json.dumps(body, separators=(",", ":")).encode("ascii")


def _read(response: httpx.Response, expects: Sequence[str] = ()) -> Any:
    """Return the JSON of a coordinator's success, None for 204. Raises Refused for its error, else _NotACoordinator."""
    is_named = INSTANCE_HEADER in response.headers
    if response.status_code == 204:
        # A 204 shows nothing of its release: without the header only a poll may get one.
        if is_named or _POLLED in expects:
            return None
        raise _NotACoordinator(response, "not a coordinator's answer")
    try:
        content = response.json()
    except ValueError:
        if not is_named or response.status_code < 400:
            raise _NotACoordinator(response, "not a coordinator's answer") from None
        content = {"detail": response.text[:200]}
    if response.is_success:
        if expects and not (isinstance(content, dict) and any(name in content for name in expects)):
            raise _NotACoordinator(response, f"an answer without `{expects[0]}`")
        return content
    if response.status_code < 400 or not (is_named or _is_detailed(content)):
        raise _NotACoordinator(response, "not a coordinator's answer")
    detail = content.get("detail", content) if isinstance(content, dict) else content
    raise Refused(response.status_code, detail, _retry_after(response), _request_id(response))


def _is_detailed(content: Any) -> bool:
    """Return True if an error without the header may be that of a coordinator of the previous release.

    `Not Found` comes from any server of the same web framework, never from a coordinator for a call made here.
    """
    return isinstance(content, dict) and content.get("detail") not in (None, "", "Not Found")


def _unreachable(
    causes: dict[str, str], foreign: Sequence[_NotACoordinator], request_id: str | None = None
) -> Unreachable:
    pauses = [other.retry_after for other in foreign if other.retry_after is not None]
    too_large = any(other.status == 413 for other in foreign)
    return Unreachable(causes, too_large=too_large, retry_after=max(pauses, default=None), request_id=request_id)


def _words(response: httpx.Response) -> str:
    text = re.sub(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", " ", response.text[:4000], flags=re.DOTALL | re.IGNORECASE)
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:100]


async def _expect_stream(response: httpx.Response) -> None:
    if response.status_code >= 300:
        await response.aread()
        _read(response)
    # The parser checks this too, but only when the first frame is read.
    if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
        await response.aread()
        raise _NotACoordinator(response, "but no event stream")


def _request_id(response: httpx.Response) -> str | None:
    """Return the id that the answer names, which is the one in the coordinator's log, else the one that was sent."""
    given = response.headers.get(REQUEST_ID_HEADER) or response.request.headers.get(REQUEST_ID_HEADER, "")
    return given if re.fullmatch(r"[A-Za-z0-9._-]{1,128}", given) else None


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _present(query: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (query or {}).items() if value is not None}


def _reason(error: httpx.HTTPError) -> str:
    match error:
        case httpx.ConnectTimeout():
            return "no connection in time"
        case httpx.TimeoutException():
            return "no answer in time"
        case _:
            return str(error) or type(error).__name__


def _trust(ca_file: str) -> ssl.SSLContext:
    """Load the authorities of the file, else those of SSL_CERT_FILE, else the default ones.

    Raises ValueError when a file of certificates cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=ca_file) if ca_file else httpx.create_ssl_context()
    except (OSError, ValueError) as error:
        source = f"{ca_file} (--ca or COORDINATOR_CA_FILE)" if ca_file else "those of SSL_CERT_FILE or SSL_CERT_DIR"
        raise ValueError(f"certificates cannot be read: {source}: {_cause(error)}") from None


def _cause(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"not an address of a coordinator: {url!r} (like http://127.0.0.1:8765)")
    return url.rstrip("/")
