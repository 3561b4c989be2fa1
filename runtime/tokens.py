import asyncio
import random
import time
from collections.abc import Mapping
from typing import Any, Final

import httpx
import jwt

from runtime.logs import log
from runtime.oidc_documents import FETCH_SECONDS, UNUSABLE, Unusable, about_issuer, fetch, http_client
from runtime.oidc_settings import is_safe_url
from runtime.token_errors import KeysMissing, Rejected

# Checked before any key is looked up: `none`, and HS256 with a public key as its secret, go no further.
ALGORITHMS: Final = {"RS256": "RSA", "ES256": "EC"}
REQUIRED: Final = ("exp", "iat", "iss", "aud", "sub")
MOST_KEYS: Final = 100
LEAST_RSA_BITS: Final = 2048
REFRESH_SECONDS: Final = 600.0
# Refresh no more often than this for tokens that name an unknown key.
UNKNOWN_KEY_SECONDS: Final = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0

logger = log(__name__)


class Issuer:
    """Issuer and its keys, which outlive an outage of it. ``generation`` counts their changes."""

    def __init__(self, issuer: str, audience: str, *, jwks_url: str = "", leeway_seconds: float = 10.0) -> None:
        self._issuer = issuer
        self._audience = audience
        self._jwks_url = jwks_url
        self._leeway = leeway_seconds
        self._keys: dict[str | None, list[jwt.PyJWK]] | None = None
        self._raw: Any = None
        self._fetching = asyncio.Lock()
        self._asked_at = -UNKNOWN_KEY_SECONDS
        self.generation = 0

    async def verify(self, token: str, audience: str | None = None) -> Mapping[str, Any]:
        """Return the claims of a token signed by the issuer, for this audience (default: ours), within its time.

        Raises Rejected, or KeysMissing while the issuer has never answered.
        """
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise Rejected(f"malformed: {type(error).__name__}") from None
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS or "crit" in header:
            raise Rejected("algorithm or extension is not accepted")
        key = await self._key(algorithm, key_id if isinstance(key_id, str) else None)
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                audience=self._audience if audience is None else audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": list(REQUIRED)},
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Rejected(type(error).__name__) from None
        return claims

    def lives_for(self, claims: Mapping[str, Any]) -> float:
        return max(0.0, float(claims["exp"]) + self._leeway - time.time())

    async def keep_keys(self) -> None:
        """Fetch the keys now and every ~10 min; keep the last ones while the issuer does not answer."""
        pause = FIRST_PAUSE
        while True:
            if await self._refresh():
                pause = FIRST_PAUSE
                await asyncio.sleep(REFRESH_SECONDS * random.uniform(0.8, 1.2))
            else:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _key(self, algorithm: str, key_id: str | None) -> jwt.PyJWK:
        key = self._find(algorithm, key_id)
        if key is None and asyncio.get_running_loop().time() - self._asked_at >= UNKNOWN_KEY_SECONDS:
            # The issuer may have created the key a moment ago.
            await self._refresh()
            key = self._find(algorithm, key_id)
        if key is None:
            if self._keys is None:
                raise KeysMissing
            raise Rejected("signed with an unknown key")
        return key

    def _find(self, algorithm: str, key_id: str | None) -> jwt.PyJWK | None:
        keys = self._keys or {}
        candidates = (
            keys.get(key_id, []) if key_id is not None else [key for same_id in keys.values() for key in same_id]
        )
        suited = [key for key in candidates if key.key_type == ALGORITHMS[algorithm]]
        return suited[0] if len(suited) == 1 else None

    async def _refresh(self) -> bool:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with self._fetching:
            if self._asked_at > began:
                return self._keys is not None
            self._asked_at = loop.time()
            try:
                async with asyncio.timeout(2 * FETCH_SECONDS), http_client() as http:
                    found = await self._fetch_keys(http)
            except UNUSABLE as error:
                logger.warning("fetching the issuer's keys failed", error=str(error) or type(error).__name__)
                return False
            self._take(found)
            return True

    async def _fetch_keys(self, http: httpx.AsyncClient) -> list[Any]:
        url = self._jwks_url
        if not url:
            url = str((await about_issuer(http, self._issuer)).get("jwks_uri", ""))
        if not is_safe_url(url):
            raise Unusable("the address of the keys is not https")
        keys = (await fetch(http, url)).get("keys")
        if not isinstance(keys, list):
            raise Unusable("no key set")
        return keys

    def _take(self, found: list[Any]) -> None:
        if found == self._raw:
            return
        keys: dict[str | None, list[jwt.PyJWK]] = {}
        for description in found[:MOST_KEYS]:
            if (key := _usable(description)) is not None:
                keys.setdefault(key.key_id, []).append(key)
        self._keys, self._raw = keys, found
        self.generation += 1
        logger.info("issuer's keys changed", keys=len(keys))


def _usable(description: Any) -> jwt.PyJWK | None:
    if not isinstance(description, dict) or description.get("use", "sig") != "sig":
        return None
    if description.get("kty") not in ALGORITHMS.values():
        return None
    try:
        key = jwt.PyJWK(description)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if key.algorithm_name not in ALGORITHMS:
        return None
    is_weak = key.key_type == "RSA" and key.key.key_size < LEAST_RSA_BITS
    return None if is_weak else key
