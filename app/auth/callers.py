"""Identify callers by an API key, a token of the OIDC issuer, or a ticket for one stream.

Authentication is on as soon as there is one source of credentials: COORDINATOR_AUTH, an issuer, or a key in Postgres.
"""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from cachetools import FIFOCache
from starlette.requests import Request

from app.auth.known_keys import KnownKey, KnownKeys
from app.http.problems import Forbidden, Unauthenticated
from app.writes.attempts import Attempts, Unavailable
from app.writes.group_commit import GroupCommit
from models.auth.keys import Token, is_secret, parse_token
from models.auth.tickets import NewTicket, Ticket, hash_ticket, issue_tickets, redeem_tickets
from models.core.callers import ADMIN, Caller, Role
from models.core.errors import CoordinatorError
from runtime import logs
from runtime.settings import Settings
from runtime.tokens import Issuer, KeysMissing, Rejected

LONGEST_TOKEN: Final = 8192
MOST_VERIFIED: Final = 10_000
LONGEST_OWNER: Final = 255
TICKET_SECONDS: Final = 60
# Rank the roles: of several in a token the first counts.
RANKING: Final = (Role.ADMIN, Role.RUNNER, Role.USER)

log = logs.log(__name__)


@dataclass(frozen=True, slots=True)
class Credential:
    """Caller of a request, and until when it is authenticated (the event loop's time); ``key_id`` for an API key."""

    caller: Caller
    key_id: str | None = None
    until: float = inf


# Credential of every request while authentication is off.
UNAUTHENTICATED_ADMIN: Final = Credential(ADMIN)


class Callers:
    """Credentials known to this process. A known one needs no database, so that a poll outlives an outage."""

    def __init__(self, settings: Settings, watch: Attempts, reads: Attempts, writes: Attempts) -> None:
        self._settings = settings
        self._keys = KnownKeys(watch, reads, writes)
        self._issue: GroupCommit[NewTicket, bool] = GroupCommit(writes, issue_tickets)
        self._redeem: GroupCommit[str, Ticket] = GroupCommit(writes, redeem_tickets)
        self._issuer: Issuer | None = None
        if settings.oidc_issuer:
            self._issuer = Issuer(
                settings.oidc_issuer,
                settings.oidc_audience,
                jwks_url=settings.oidc_jwks_url,
                leeway_seconds=settings.oidc_leeway_seconds,
            )
        self._roles = {word: Role(role) for word, _, role in (pair.rpartition("=") for pair in settings.oidc_roles)}
        self._verified: FIFOCache[str, Credential] = FIFOCache(MOST_VERIFIED)
        self._generation = 0

    @property
    def auth_required(self) -> bool | None:
        if self._settings.auth or self._issuer is not None:
            return True
        return self._keys.any_key_ever_created

    def forever(self) -> dict[str, Coroutine[Any, Any, None]]:
        loops = {"keys": self._keys.watch_forever()}
        if self._issuer is not None:
            loops["issuer"] = self._issuer.keep_keys()
        return loops

    def recall(self, shown: str | None) -> Credential | None:
        """Return the credential if it is known without waiting, else None. Raises Unauthenticated or Forbidden."""
        asked = self.auth_required
        if asked is False:
            return UNAUTHENTICATED_ADMIN
        if asked is None:
            return None
        token = _token_of(shown)
        if isinstance(token, Token):
            known = self._keys.recall(token.key_id)
            return None if known is None else self._by_key(known, token)
        return self._remembered(token)

    async def identify(self, shown: str | None) -> Credential:
        """Return the credential. Raises Unauthenticated, Forbidden, and Unavailable while it cannot be checked."""
        found = self.recall(shown)
        if found is not None:
            return found
        if self.auth_required is None:
            raise Unavailable
        token = _token_of(shown)
        if isinstance(token, Token):
            known = await self._keys.get(token.key_id)
            if known is None:
                raise Forbidden
            return self._by_key(known, token)
        return await self._by_claims(token)

    async def issue_ticket(self, credential: Credential, filters: Mapping[str, str]) -> str:
        ticket = "tkt_" + secrets.token_urlsafe(32)
        left = credential.until - asyncio.get_running_loop().time()
        new = NewTicket(
            hash_ticket(ticket),
            credential.caller,
            json.dumps(dict(filters)),
            TICKET_SECONDS,
            credential.key_id,
            None if left == inf else left,
        )
        await self._issue.one(new)
        return ticket

    async def redeem_ticket(self, ticket: str) -> tuple[Credential, dict[str, str]]:
        """Consume a ticket; return its caller and filters. Raises Forbidden, Unavailable.

        The ticket works once, and no longer than the credential it was issued for.
        """
        found = await self._redeem.one(hash_ticket(ticket))
        if isinstance(found, CoordinatorError):
            raise Forbidden
        until = inf if found.lives_for is None else asyncio.get_running_loop().time() + found.lives_for
        if found.key_id is not None:
            known = await self._keys.get(found.key_id)
            until = min(until, known.until if known is not None else 0.0)
        credential = Credential(found.caller, found.key_id, until)
        self.check(credential)
        return credential, json.loads(found.filters)

    def check(self, credential: Credential) -> None:
        if self._is_over(credential):
            raise Forbidden

    def _is_over(self, credential: Credential) -> bool:
        until = credential.until
        if credential.key_id is not None and (known := self._keys.recall(credential.key_id)) is not None:
            until = min(until, known.until)
        return until <= asyncio.get_running_loop().time()

    @contextmanager
    def watching(self, credential: Credential, end: Callable[[], None]) -> Iterator[None]:
        """Call ``end`` when the credential expires or is revoked during the block: held requests and streams end with
        it.
        """
        loop = asyncio.get_running_loop()
        timer = None if credential.until == inf else loop.call_at(credential.until, end)
        key_id = credential.key_id
        try:
            with nullcontext() if key_id is None else self._keys.watching(key_id, end):
                if self._is_over(credential):
                    end()
                yield
        finally:
            if timer is not None:
                timer.cancel()

    def _by_key(self, known: KnownKey, token: Token) -> Credential:
        if not is_secret(known.key, token) or known.until <= asyncio.get_running_loop().time():
            raise Forbidden
        self._keys.used(known.key.key_id)
        key = known.key
        return Credential(Caller(key.role, key.owner, f"key:{key.key_id}"), key.key_id, known.until)

    def _remembered(self, token: str) -> Credential | None:
        if self._issuer is None:
            raise Forbidden
        if self._generation != self._issuer.generation:
            # The issuer changed its keys: tokens signed with a withdrawn one are no longer valid.
            self._verified.clear()
            self._generation = self._issuer.generation
        credential = self._verified.get(_digest(token))
        if credential is not None and credential.until <= asyncio.get_running_loop().time():
            raise Forbidden
        return credential

    async def _by_claims(self, token: str) -> Credential:
        if self._issuer is None:
            raise Forbidden
        try:
            claims = await self._issuer.verify(token)
        except Rejected as reason:
            log.info("token rejected", reason=str(reason))
            raise Forbidden from None
        except KeysMissing:
            raise Unavailable from None
        until = asyncio.get_running_loop().time() + self._issuer.lives_for(claims)
        credential = Credential(self._caller_of(claims), until=until)
        self._verified[_digest(token)] = credential
        return credential

    def _caller_of(self, claims: Mapping[str, Any]) -> Caller:
        """Return the caller that the claims name. Raises Forbidden without a known role or a usable owner."""
        given = _at(claims, self._settings.oidc_roles_claim)
        words = given.split() if isinstance(given, str) else given if isinstance(given, list) else []
        roles = {self._roles[word] for word in words if isinstance(word, str) and word in self._roles}
        owner = _at(claims, self._settings.oidc_owner_claim)
        if not roles or not isinstance(owner, str) or not is_owner(owner):
            raise Forbidden
        return Caller(next(role for role in RANKING if role in roles), owner, f"subject:{owner}")


def is_owner(name: str) -> bool:
    return bool(name.strip()) and len(name) <= LONGEST_OWNER and name.isprintable()


def shown_by(request: Request, *, in_query: bool) -> str | None:
    """Return the credential of a request, None for none: `Authorization`, else `X-API-Key`, else from the query.

    Raises Unauthenticated for an `Authorization` that is no bearer token.
    """
    authorization = request.headers.get("authorization")
    if authorization is not None:
        scheme, _, token = authorization.strip().partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated
        return token.strip()
    key = request.headers.get("x-api-key")
    if key is None and in_query and request.method == "GET":
        key = request.query_params.get("api_key")
    return key


def _token_of(shown: str | None) -> Token | str:
    if not shown or len(shown) > LONGEST_TOKEN or not shown.isascii() or not shown.isprintable():
        raise Unauthenticated
    token = parse_token(shown)
    if token is not None:
        return token
    if shown.count(".") != 2 or " " in shown or not all(shown.split(".")[:2]):
        raise Unauthenticated
    return shown


def _at(claims: Mapping[str, Any], name: str) -> Any:
    """Return the claim of that name or, without one, the value at its dotted path: `realm_access.roles`."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
