"""Sessions of the console: a cookie instead of a key in the page, which shows texts that attackers may have written."""

import asyncio
import secrets
from typing import Final
from urllib.parse import urlsplit

from cachetools import FIFOCache
from starlette.requests import Request
from starlette.responses import Response

from app.auth.callers import UNAUTHENTICATED_ADMIN, Callers, Credential
from app.http.origins import host_name, is_loopback
from app.http.problems import Forbidden, Unauthenticated
from app.writes.attempts import Attempts, Unavailable
from app.writes.group_commit import GroupCommit
from models.auth.console_sessions import (
    ConsoleSession,
    NewConsoleSession,
    OpenResult,
    close_console_sessions,
    find_console_sessions,
    open_console_sessions,
)
from models.auth.keys import hash_secret
from models.core.errors import CoordinatorError

SECONDS: Final = 12 * 3600.0
# Read a session again after this long: it may have been closed through another instance.
KNOWN_SECONDS: Final = 2.0
MOST_KNOWN: Final = 10_000
LONGEST_TOKEN: Final = 128
# No page of another origin can send this header: CORS does not allow it.
HEADER: Final = "x-coordinator-console"
# Browsers accept a cookie with the prefix over https only, for this host and without a domain.
COOKIE: Final = "coordinator_console"
SECURE_COOKIE: Final = f"__Host-{COOKIE}"
UNSAFE: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class ConsoleSessions:
    def __init__(self, callers: Callers, reads: Attempts, writes: Attempts) -> None:
        self._callers = callers
        self._open: GroupCommit[NewConsoleSession, OpenResult] = GroupCommit(writes, open_console_sessions)
        self._find: GroupCommit[str, ConsoleSession] = GroupCommit(reads, find_console_sessions)
        self._close: GroupCommit[str, bool] = GroupCommit(writes, close_console_sessions)
        self._known: FIFOCache[str, tuple[Credential, float]] = FIFOCache(MOST_KNOWN)

    async def open(self, credential: Credential, sign_in: str | None = None) -> str:
        """Open a session for the caller and return its token. The session ends with the credential, 12 h at most.

        ``sign_in``: name of a sign-in that may open one session only; Forbidden for the second.
        """
        token = secrets.token_urlsafe(32)
        seconds = min(SECONDS, credential.until - asyncio.get_running_loop().time())
        sign_in_hash = None if sign_in is None else hash_secret(sign_in)
        opened = await self._open.one(
            NewConsoleSession(hash_secret(token), credential.caller, seconds, credential.key_id, sign_in_hash)
        )
        if isinstance(opened, CoordinatorError):
            raise Forbidden
        return token

    async def identify(self, token: str) -> Credential:
        """Return the credential of a session. Raises Unauthenticated, and Unavailable while it cannot be read."""
        if self._callers.auth_required is False:
            return UNAUTHENTICATED_ADMIN
        if self._callers.auth_required is None:
            raise Unavailable
        hashed, now = hash_secret(token), asyncio.get_running_loop().time()
        known = self._known.get(hashed)
        try:
            if known is not None and now < known[1]:
                self._callers.check(known[0])
                return known[0]
            credential = await self._read(hashed)
        except Unauthenticated:
            self._known.pop(hashed, None)
            raise
        self._known[hashed] = (credential, now + KNOWN_SECONDS)
        return credential

    async def confirm(self, credential: Credential) -> None:
        """Raise Unauthenticated if a ticket's session of the console is over, Unavailable while it cannot be read."""
        if credential.session_hash is not None:
            await self._read(credential.session_hash)

    async def close(self, token: str) -> None:
        """Close the session, and what it holds open: here at once, at other instances within 5 s."""
        hashed = hash_secret(token)
        self._known.pop(hashed, None)
        await self._close.one(hashed)
        self._known.pop(hashed, None)
        self._callers.sessions.end(hashed)

    async def _read(self, hashed: str) -> Credential:
        found = await self._find.one(hashed)
        if isinstance(found, CoordinatorError):
            raise Unauthenticated
        return await self._callers.credential_for(found.caller, found.key_id, found.lives_for, hashed)


def session_of(request: Request) -> str | None:
    """Return the token of the cookie, if a page of this origin sends the request; None else.

    Over https only the cookie with the prefix counts: neighbours of a common domain can set the other one.
    """
    token = request.cookies.get(SECURE_COOKIE)
    if token is None and not is_https(request):
        token = request.cookies.get(COOKIE)
    return token if token and len(token) <= LONGEST_TOKEN and is_own_page(request) else None


def is_own_page(request: Request) -> bool:
    """Return whether a page of this origin sends the request: it has the header, and says the same of its origin.

    Browsers send `Sec-Fetch-Site` over https and to loopback addresses. Without it, `Origin` decides, which they leave
    out of requests that change nothing.
    """
    headers = request.headers
    if headers.get(HEADER) != "1":
        return False
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site == "same-origin"
    if origin is None:
        return request.method not in UNSAFE
    try:
        return urlsplit(origin).netloc == headers.get("host")
    except ValueError:
        return False


def is_https(request: Request) -> bool:
    """Return whether a browser sends the request over https; `Sec-Fetch-Site` it sends to loopback addresses, too."""
    headers = request.headers
    if headers.get("origin", "").startswith("https://"):
        return True
    return "sec-fetch-site" in headers and not is_loopback(host_name(f"//{headers.get('host', '')}") or "")


def set_cookie(response: Response, token: str, *, secure: bool) -> None:
    """Set the cookie of a session, over https (``secure``) with the prefix that binds it to this host."""
    name = SECURE_COOKIE if secure else COOKIE
    response.set_cookie(name, token, int(SECONDS), path="/", httponly=True, secure=secure, samesite="strict")


def delete_cookies(response: Response) -> None:
    for name, secure in ((SECURE_COOKIE, True), (COOKIE, False)):
        response.set_cookie(name, "", 0, path="/", httponly=True, secure=secure, samesite="strict")
