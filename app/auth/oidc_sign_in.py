"""Sign in to the console by OIDC: the server does the code flow with PKCE, on any instance, and keeps nothing of it.

All that a callback is checked by is derived from one secret in a cookie of the browser that began.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from app.auth.callers import Callers, Credential
from app.auth.console_sessions import ConsoleSessions
from app.http.problems import Forbidden
from app.writes.attempts import Unavailable
from runtime import logs
from runtime.settings import Settings
from runtime.token_errors import CodeRefused, ProviderAway, error_text

if TYPE_CHECKING:
    from runtime.identity_provider import ProviderTokens

LONGEST_RETURN_TO: Final = 1024
LONGEST_SECRET: Final = 64
LONGEST_CODE: Final = 4096
# Characters of a path and query: no backslash, which browsers take for a slash, no control character, no fragment.
RETURN_TO: Final = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@/?%]*")

NOT_BEGUN: Final = "This sign-in did not begin in this browser, or more than 10 minutes ago. Begin again."
USED: Final = "This sign-in has been used already. Begin again."
AWAY: Final = "The identity provider does not answer as it should. Try again later, or sign in with an API key."
NOT_VALID: Final = "The identity provider's answer is not valid for this sign-in. Begin again."
NO_ROLE: Final = "Your account has no role here. Ask an administrator for one, or sign in with an API key."
NOT_NOW: Final = "The coordinator cannot complete the sign-in now. Begin again in a few seconds."

log = logs.log(__name__)


class SignInRefused(Exception):
    """Sign-in that opens no session; the message is for the person at the browser."""


@dataclass(frozen=True, slots=True)
class BegunSignIn:
    """Sign-in that a browser began: its secret, and the place in the console to return to."""

    secret: str
    return_to: str

    @classmethod
    def of_cookie(cls, text: str | None) -> "BegunSignIn | None":
        secret, _, return_to = (text or "").partition(".")
        if not secret or len(secret) > LONGEST_SECRET:
            return None
        place = unpacked(return_to)
        return cls(secret, place if is_in_console(place) else "/")

    def cookie(self) -> str:
        return f"{self.secret}.{packed(self.return_to)}"

    @property
    def state(self) -> str:
        return self._derived("state")

    @property
    def nonce(self) -> str:
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        return self._derived("verifier")

    @property
    def challenge(self) -> str:
        return _base64(hashlib.sha256(self.verifier.encode()).digest())

    def _derived(self, purpose: str) -> str:
        # One way: neither the secret nor the verifier follows from a state, which addresses and logs show.
        return _base64(hmac.digest(self.secret.encode("utf-8", "surrogatepass"), purpose.encode(), "sha256"))


class OidcSignIn:
    def __init__(self, settings: Settings, callers: Callers, sessions: ConsoleSessions) -> None:
        from runtime.identity_provider import IdentityProvider  # noqa: PLC0415 most starts need no client of HTTP

        self._settings = settings
        self._callers = callers
        self._sessions = sessions
        self._provider = IdentityProvider(settings, f"{settings.console_url}/callback")

    async def prepare(self, return_to: str) -> tuple[BegunSignIn, str]:
        """Return a new sign-in and the address at the provider to go on at. Raises SignInRefused."""
        begun = BegunSignIn(secrets.token_urlsafe(32), return_to)
        try:
            return begun, await self._provider.authorization_url(begun.state, begun.nonce, begun.challenge)
        except ProviderAway as reason:
            log.warning("sign-in not begun", reason=str(reason))
            raise SignInRefused(AWAY) from None

    async def complete(self, begun: BegunSignIn | None, answer: Mapping[str, str]) -> tuple[Credential, str]:
        """Return the caller of a callback and the token of its new session. Raises SignInRefused.

        ``answer``: query of the callback. Of all that show the same sign-in, one gets a session.
        """
        if begun is None or not _equal(answer.get("state", ""), begun.state):
            raise SignInRefused(NOT_BEGUN)
        if answer.get("iss", self._settings.oidc_issuer) != self._settings.oidc_issuer:
            raise SignInRefused(NOT_VALID)
        if answer.get("error"):
            raise SignInRefused(f"The identity provider refused the sign-in: {error_text(answer)}")
        credential = await self._identify(begun, answer.get("code", ""))
        try:
            return credential, await self._sessions.open(credential, begun.state)
        except Forbidden:
            raise SignInRefused(USED) from None
        except Unavailable:
            raise SignInRefused(NOT_NOW) from None

    async def close(self) -> None:
        await self._provider.close()

    async def _identify(self, begun: BegunSignIn, code: str) -> Credential:
        if not code or len(code) > LONGEST_CODE:
            raise SignInRefused(NOT_VALID)
        try:
            tokens = await self._provider.exchange(code, begun.verifier)
        except ProviderAway as reason:
            log.warning("sign-in not completed", reason=str(reason))
            raise SignInRefused(AWAY) from None
        except CodeRefused as reason:
            log.info("sign-in refused by the identity provider", reason=str(reason))
            raise SignInRefused(f"The identity provider refused the sign-in: {reason}") from None
        claims = await self._claims_of(begun, tokens)
        try:
            return self._callers.credential_of(claims)
        except Forbidden:
            log.info("sign-in without a role", subject=str(claims.get("sub"))[:100])
            raise SignInRefused(NO_ROLE) from None

    async def _claims_of(self, begun: BegunSignIn, tokens: "ProviderTokens") -> Mapping[str, Any]:
        """Return the claims that give role and owner: of the ID token, or by the settings of the access token.

        The ID token is checked in any case.
        """
        try:
            identity = await self._callers.claims_of(tokens.id_token, self._settings.oidc_client_id)
            if not _is_for(identity, begun.nonce, self._settings.oidc_client_id):
                log.info("sign-in refused", reason="ID token of another sign-in or client")
                raise SignInRefused(NOT_VALID)
            if self._settings.oidc_sign_in_claims == "id_token":
                return identity
            access = await self._callers.claims_of(tokens.access_token or "")
        except Forbidden:
            raise SignInRefused(NOT_VALID) from None
        except Unavailable:
            raise SignInRefused(AWAY) from None
        if access.get("sub") != identity.get("sub"):
            log.info("sign-in refused", reason="access token of another subject")
            raise SignInRefused(NOT_VALID)
        return access


def sign_in_of(settings: Settings, callers: Callers, sessions: ConsoleSessions) -> OidcSignIn | None:
    return OidcSignIn(settings, callers, sessions) if settings.oidc_client_id else None


def is_in_console(place: str) -> bool:
    """Return whether a browser that appends this to the console's address stays in the console."""
    if len(place) > LONGEST_RETURN_TO or not RETURN_TO.fullmatch(place) or place.startswith("//"):
        return False
    # Browsers resolve encoded dots, too.
    return not {".", ".."} & {unquote(part) for part in place.partition("?")[0].split("/")}


def packed(text: str) -> str:
    return _base64(text.encode("utf-8", "replace"))


def unpacked(text: str) -> str:
    """Return a packed text, "" for one that is none."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode()
    except ValueError:
        return ""


def _is_for(identity: Mapping[str, Any], nonce: str, client_id: str) -> bool:
    """Return whether an ID token answers this sign-in of this client, which alone may use it."""
    audience = identity.get("aud")
    default = client_id if not isinstance(audience, list) or len(audience) == 1 else None
    return _equal(str(identity.get("nonce")), nonce) and identity.get("azp", default) == client_id


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
