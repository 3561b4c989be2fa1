"""Speak the authorization code flow with PKCE to the identity provider (RFC 6749, RFC 7636, OpenID Connect Core)."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import httpx

from runtime import logs
from runtime.oidc_documents import FETCH_SECONDS, UNUSABLE, Unusable, about_issuer, document_of, http_client
from runtime.oidc_settings import is_safe_url
from runtime.settings import Settings
from runtime.token_errors import CodeRefused, ProviderAway, error_text

# Read the discovery document again after this long; during an outage the last one serves on.
REFRESH_SECONDS: Final = 600.0
# Codes of this process that are exchanged at once; further ones wait as long as an exchange may take.
MOST_EXCHANGES: Final = 16
EXCHANGE_SECONDS: Final = 2 * FETCH_SECONDS

log = logs.log(__name__)


@dataclass(frozen=True, slots=True)
class ProviderEndpoints:
    """Addresses of the provider; ``secret_in_body``: the token endpoint takes the secret in no header."""

    authorization: str
    token: str
    secret_in_body: bool


@dataclass(frozen=True, slots=True)
class ProviderTokens:
    id_token: str
    access_token: str | None


class IdentityProvider:
    def __init__(self, settings: Settings, redirect_uri: str) -> None:
        self._settings = settings
        self._redirect_uri = redirect_uri
        self._endpoints: ProviderEndpoints | None = None
        self._asking = asyncio.Lock()
        self._asked_at = 0.0
        self._read_at = -REFRESH_SECONDS
        self._exchanges = asyncio.Semaphore(MOST_EXCHANGES)
        self._client: httpx.AsyncClient | None = None

    async def authorization_url(self, state: str, nonce: str, challenge: str) -> str:
        """Return the address at which a browser signs in. Raises ProviderAway before the provider was ever reached."""
        endpoint = (await self._current_endpoints()).authorization
        query = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": self._redirect_uri,
            "scope": " ".join(self._settings.oidc_scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        if self._settings.oidc_sign_in_claims == "access_token":
            # Some providers issue a token that can be verified only when asked for its audience.
            query["audience"] = self._settings.oidc_audience
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(query)}"

    async def exchange(self, code: str, verifier: str) -> ProviderTokens:
        """Return the tokens for a code, which the provider accepts once. Raises ProviderAway, CodeRefused."""
        endpoints = await self._current_endpoints()
        try:
            async with asyncio.timeout(EXCHANGE_SECONDS), self._exchanges:
                return await self._ask_for_tokens(endpoints, code, verifier)
        except UNUSABLE as error:
            raise ProviderAway(str(error) or type(error).__name__) from None

    async def close(self) -> None:
        if self._client is not None:
            with suppress(httpx.HTTPError, OSError):
                await self._client.aclose()

    async def _ask_for_tokens(self, endpoints: ProviderEndpoints, code: str, verifier: str) -> ProviderTokens:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": verifier,
        }
        client_id, secret = self._settings.oidc_client_id, self._settings.oidc_client_secret
        auth = None
        if secret and not endpoints.secret_in_body:
            auth = httpx.BasicAuth(quote(client_id, safe=""), quote(secret, safe=""))
        else:
            form |= {"client_id": client_id} | ({"client_secret": secret} if secret else {})
        accepted = {"Accept": "application/json"}
        async with self._http().stream("POST", endpoints.token, data=form, auth=auth, headers=accepted) as response:
            answer = await document_of(response)
            if response.status_code in {400, 401, 403} and isinstance(answer.get("error"), str):
                raise CodeRefused(error_text(answer))
            if response.status_code != 200:
                raise Unusable(f"HTTP {response.status_code}")
        id_token, access_token = answer.get("id_token"), answer.get("access_token")
        if not isinstance(id_token, str):
            raise Unusable("the answer has no ID token")
        return ProviderTokens(id_token, access_token if isinstance(access_token, str) else None)

    async def _current_endpoints(self) -> ProviderEndpoints:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self._endpoints is None or began - self._read_at >= REFRESH_SECONDS:
            async with self._asking:
                # Others that waited take the outcome of the one that asked.
                if self._asked_at <= began:
                    await self._read_endpoints()
                    self._asked_at = loop.time()
        if self._endpoints is None:
            raise ProviderAway("the discovery document was never read")
        return self._endpoints

    async def _read_endpoints(self) -> None:
        # Ask a provider that is away no more often than this while its last document serves.
        self._read_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(EXCHANGE_SECONDS):
                about = await about_issuer(self._http(), self._settings.oidc_issuer)
            self._endpoints = _endpoints_of(about)
        except UNUSABLE as error:
            log.warning("reading the identity provider's document failed", error=str(error) or type(error).__name__)

    def _http(self) -> httpx.AsyncClient:
        # Certificates take 40 ms to load: once for a process.
        if self._client is None:
            self._client = http_client()
        return self._client


def _endpoints_of(about: dict[str, Any]) -> ProviderEndpoints:
    addresses = [about.get("authorization_endpoint"), about.get("token_endpoint")]
    for address in addresses:
        if not isinstance(address, str) or not address.isascii() or not address.isprintable():
            raise Unusable("the discovery document names no endpoints for a sign-in")
        if not is_safe_url(address) or "#" in address:
            raise Unusable("an endpoint of the provider is not https")
    methods = about.get("token_endpoint_auth_methods_supported")
    in_body = isinstance(methods, list) and "client_secret_basic" not in methods
    return ProviderEndpoints(str(addresses[0]), str(addresses[1]), in_body)
