"""Read the documents of an OIDC issuer: over https, bounded in size and time, without following redirects."""

import json
from typing import Any, Final

import httpx

DISCOVERY: Final = "/.well-known/openid-configuration"
FETCH_SECONDS: Final = 5.0
MOST_BYTES: Final = 1 << 20


class Unusable(Exception):
    pass


# Exceptions of an issuer that is away or answers nothing usable.
UNUSABLE: Final = (Unusable, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, TimeoutError, RecursionError)


def http_client() -> httpx.AsyncClient:
    try:
        return httpx.AsyncClient(timeout=FETCH_SECONDS, follow_redirects=False)
    except (httpx.InvalidURL, ImportError, ValueError, OSError) as error:
        raise Unusable(f"proxies or certificates of the environment cannot be used: {error}") from None


async def about_issuer(http: httpx.AsyncClient, issuer: str) -> dict[str, Any]:
    """Return the discovery document of the issuer. Raises one of UNUSABLE."""
    about = await fetch(http, issuer.rstrip("/") + DISCOVERY)
    if about.get("issuer") != issuer:
        raise Unusable("the discovery document is of another issuer")
    return about


async def fetch(http: httpx.AsyncClient, url: str) -> dict[str, Any]:
    async with http.stream("GET", url) as response:
        if response.status_code != 200:
            raise Unusable(f"HTTP {response.status_code}")
        return await document_of(response)


async def document_of(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of a streamed answer. Raises one of UNUSABLE."""
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > MOST_BYTES:
            raise Unusable("the answer is too large")
    document = json.loads(body)
    if not isinstance(document, dict):
        raise Unusable("the answer is no JSON object")
    return document
