"""Identify callers by an API key, a token of the OIDC issuer, or a ticket for one stream.

Authentication is on as soon as there is one source of credentials: COORDINATOR_AUTH, an issuer, or a key in Postgres.
"""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Final

from cachetools import FIFOCache
from starlette.requests import Request

from app.auth.known_keys import KnownKey, KnownKeys
from app.auth.watched_sessions import WatchedSessions
from app.http.headers import header_of
from app.http.problems import Forbidden, Unauthenticated
from app.writes.attempts import Attempts, Unavailable
from app.writes.group_commit import GroupCommit
from models.auth.keys import Token, hash_secret, is_secret, parse_token
from models.auth.tickets import NewTicket, Ticket, issue_tickets, redeem_tickets
from models.core.callers import ADMIN, Caller, Role
from models.core.errors import CoordinatorError
from runtime import logs
from runtime.settings import Settings
from runtime.token_errors import KeysMissing, Rejected

if TYPE_CHECKING:
    from runtime.tokens import Issuer

LONGEST_TOKEN: Final = 8192
MOST_VERIFIED: Final = 10_000
LONGEST_OWNER: Final = 255
TICKET_SECONDS: Final = 60
# Rank the roles: of several in a token the first counts.
RANKING: Final = (Role.ADMIN, Role.RUNNER, Role.USER)

log = logs.log(__name__)


@dataclass(frozen=True, slots=True)
class Credential:
    """Caller of a request, and until when it is authenticated (the event loop's time).

    ``key_id`` for an API key, ``session_hash`` for a session of the console.
    """

    caller: Caller
    key_id: str | None = None
    until: float = inf
    session_hash: str | None = None


# Credential of every request while authentication is off.
UNAUTHENTICATED_ADMIN: Final = Credential(ADMIN)


class Callers:
    """Credentials known to this process. A known one needs no database, so that a poll outlives an outage."""

    def __init__(self, settings: Settings, watch: Attempts, reads: Attempts, writes: Attempts) -> None:
        self._settings = settings
        self._keys = KnownKeys(watch, reads, writes)
        self.sessions = WatchedSessions(watch)
        self._issue: GroupCommit[NewTicket, bool] = GroupCommit(writes, issue_tickets)
        self._redeem: GroupCommit[str, Ticket] = GroupCommit(writes, redeem_tickets)
        self._issuer = _issuer(settings)
        self._configured = settings.auth or self._issuer is not None
        self._roles = {word: Role(role) for word, _, role in (pair.rpartition("=") for pair in settings.oidc_roles)}
        self._verified: FIFOCache[str, Credential] = FIFOCache(MOST_VERIFIED)
        self._generation = 0

    @property
    def auth_required(self) -> bool | None:
        return True if self._configured else self._keys.any_key_ever_created

    def forever(self) -> dict[str, Coroutine[Any, Any, None]]:
        loops = {"keys": self._keys.watch_forever(), "console sessions": self.sessions.watch_forever()}
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
            hash_secret(ticket),
            credential.caller,
            json.dumps(dict(filters)),
            TICKET_SECONDS,
            credential.key_id,
            None if left == inf else left,
            credential.session_hash,
        )
        await self._issue.one(new)
        return ticket

    async def redeem_ticket(self, ticket: str) -> tuple[Credential, dict[str, str]]:
        """Consume a ticket; return its caller and filters. Raises Forbidden, Unavailable.

        The ticket works once, and no longer than the credential it was issued for.
        """
        found = await self._redeem.one(hash_secret(ticket))
        if isinstance(found, CoordinatorError):
            raise Forbidden
        credential = await self.credential_for(found.caller, found.key_id, found.lives_for, found.session_hash)
        return credential, json.loads(found.filters)

    async def credential_for(
        self, caller: Caller, key_id: str | None, lives_for: float | None, session_hash: str | None
    ) -> Credential:
        """Return the credential of what was issued to a caller: it ends with its key or session.

        Raises as ``check``, and Unavailable.
        """
        until = inf if lives_for is None else asyncio.get_running_loop().time() + lives_for
        if key_id is not None:
            known = await self._keys.get(key_id)
            until = min(until, known.until if known is not None else 0.0)
        credential = Credential(caller, key_id, until, session_hash)
        self.check(credential)
        return credential

    def check(self, credential: Credential) -> None:
        """Raise Forbidden for a credential that has ended, Unauthenticated for a session of the console."""
        if self._is_over(credential):
            raise Forbidden if credential.session_hash is None else Unauthenticated

    def _is_over(self, credential: Credential) -> bool:
        if credential.session_hash is not None and self.sessions.has_ended(credential.session_hash):
            return True
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
        try:
            with ExitStack() as watched:
                if credential.key_id is not None:
                    watched.enter_context(self._keys.watching(credential.key_id, end))
                if credential.session_hash is not None:
                    watched.enter_context(self.sessions.watching(credential.session_hash, end))
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
        credential = self.credential_of(await self.claims_of(token))
        self._verified[_digest(token)] = credential
        return credential

    async def claims_of(self, token: str, audience: str | None = None) -> Mapping[str, Any]:
        """Return the claims of a token of the issuer for this audience (default: ours). Raises Forbidden, Unavailable.

        Caches nothing.
        """
        if self._issuer is None:
            raise Forbidden
        try:
            return await self._issuer.verify(token, audience)
        except Rejected as reason:
            log.info("token rejected", reason=str(reason))
            raise Forbidden from None
        except KeysMissing:
            raise Unavailable from None

    def credential_of(self, claims: Mapping[str, Any]) -> Credential:
        """Return the credential that verified claims give, until they expire. Raises Forbidden without a role."""
        if self._issuer is None:
            raise Forbidden
        until = asyncio.get_running_loop().time() + self._issuer.lives_for(claims)
        return Credential(self._caller_of(claims), until=until)

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
    authorization = header_of(request.scope, b"authorization")
    if authorization is not None:
        scheme, _, token = authorization.strip().partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated
        return token.strip()
    key = header_of(request.scope, b"x-api-key")
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
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _issuer(settings: Settings) -> "Issuer | None":
    if not settings.oidc_issuer:
        return None
    from runtime.tokens import Issuer  # noqa: PLC0415 cryptography takes every start 60 ms, and most need none

    return Issuer(
        settings.oidc_issuer,
        settings.oidc_audience,
        jwks_url=settings.oidc_jwks_url,
        leeway_seconds=settings.oidc_leeway_seconds,
    )
