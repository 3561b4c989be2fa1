"""Send a message to a webhook: to an address that was checked, without redirects, proxies or an answer's body."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from typing import Final

import httpx

from runtime.webhooks.addresses import ATTEMPT_SECONDS, TargetRefused, Targets, Unresolved
from runtime.webhooks.signing import signed_headers

CONNECT_SECONDS: Final = 4.0
# Addresses of a name that are tried in turn while none accepts a connection.
MOST_ADDRESSES: Final = 3
LONGEST_RETRY_AFTER: Final = 86_400


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to a message: its status, or why there is none; ``retry_after`` in seconds, as it asked."""

    status: int | None = None
    error: str | None = None
    retry_after: float = 0.0


class Sender:
    """HTTP client of webhooks. Each message has a connection of its own: one to an address serves no other name."""

    def __init__(
        self, targets: Targets, *, seconds: float = ATTEMPT_SECONDS, tls: ssl.SSLContext | None = None
    ) -> None:
        self._targets = targets
        self._seconds = seconds
        self._http = httpx.AsyncClient(
            # A proxy of the environment would look the name up itself.
            trust_env=False,
            follow_redirects=False,
            verify=ssl.create_default_context() if tls is None else tls,
            # An attempt as a whole has a time limit of its own.
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_keepalive_connections=0),
            # Keep no cookies: those of a name would be sent to all names at its address.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            headers={"User-Agent": f"coordinator-webhooks/{version('coordinator')}"},
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def send(self, url: str, message_id: str, payload: str, secrets: Sequence[str]) -> Answer:
        """Send a message once; return what came of it, whatever it is."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._send(url, message_id, payload, secrets)
        except (TargetRefused, Unresolved) as refused:
            return Answer(error=str(refused))
        except TimeoutError:
            return Answer(error=f"No answer within {self._seconds:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as fault:
            return Answer(error=_words(fault))

    async def _send(self, url: str, message_id: str, payload: str, secrets: Sequence[str]) -> Answer:
        target = self._targets.parse(url)
        addresses = (await self._targets.resolve(target))[:MOST_ADDRESSES]
        headers = {
            "Host": target.url.netloc.decode("ascii"),
            "Content-Type": "application/json",
            **signed_headers(message_id, datetime.now(UTC), payload, secrets),
        }
        for place, address in enumerate(addresses, 1):
            request = self._http.build_request(
                "POST",
                target.url.copy_with(host=address),
                content=payload.encode(),
                headers=headers,
                # Name in the handshake, and the one that the certificate must have.
                extensions={"sni_hostname": target.host},
            )
            try:
                response = await self._http.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if place == len(addresses):
                    raise
                continue
            try:
                return Answer(response.status_code, retry_after=_retry_after(response))
            finally:
                await response.aclose()
        raise Unresolved("The name does not resolve")


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    seconds = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0
    return float(min(seconds, LONGEST_RETRY_AFTER))


def _words(fault: Exception) -> str:
    match fault:
        case httpx.ConnectTimeout() | httpx.ConnectError() if _is_certificate(fault):
            return "Its certificate is not valid for this name"
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return "No connection"
        case httpx.TimeoutException():
            return "No answer in time"
        case httpx.TransportError():
            return "The connection ended without an answer"
    return f"Not sent: {type(fault).__name__}"


def _is_certificate(fault: BaseException | None) -> bool:
    while fault is not None:
        if isinstance(fault, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(fault):
            return True
        fault = fault.__cause__ or fault.__context__
    return False
