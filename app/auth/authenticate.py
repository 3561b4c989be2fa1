"""Authenticate and authorize every request, and decide the answer while Postgres or the issuer is down.

The credential stays with the request as ``scope[CREDENTIAL]``, for code outside of the routes too.
"""

import asyncio
from typing import Final

from starlette.requests import Request

from app.auth.caller_limits import CallerLimits
from app.auth.callers import UNAUTHENTICATED_ADMIN, Callers, Credential, shown_by
from app.auth.console_sessions import ConsoleSessions, session_of
from app.auth.outages import OutagePolicy, outage_policy_of
from app.auth.permissions import endpoint_of, permission_of
from app.http.bodies import Invalid
from app.http.problems import EmptyPoll, Forbidden, ReconnectLater, Unauthenticated
from app.http.query import POLL_WAIT
from app.lifecycle.drain import Drain
from app.writes.attempts import Unavailable
from app.writes.retries import retry_until
from models.core.callers import Caller, Role
from runtime.settings import Settings

CREDENTIAL: Final = "coordinator.credential"
TICKET: Final = "coordinator.ticket"
# The filters of a ticket hold even while authentication is off.
TICKET_QUERY: Final = b"ticket="
# Wait this long for a caller that cannot be authenticated: Postgres may be slow, or just starting.
AUTHENTICATION_WAIT_SECONDS: Final = 5.0
# After a longer wait than this a poll ends with 204.
POLL_DELAY_SECONDS: Final = 2.0
# Credential on public endpoints: sees no data.
PUBLIC_CREDENTIAL: Final = Credential(Caller(Role.USER))


class Authenticator:
    def __init__(
        self, settings: Settings, drain: Drain, callers: Callers, limits: CallerLimits, sessions: ConsoleSessions
    ) -> None:
        self._settings = settings
        self._drain = drain
        self._callers = callers
        self._limits = limits
        self._sessions = sessions

    async def authenticate(self, request: Request) -> Credential:
        """Return the credential of the request. Raises Unauthenticated, Forbidden, or as ``OutagePolicy`` says."""
        known = request.scope.get(CREDENTIAL)
        if isinstance(known, Credential):
            return known
        if self._callers.auth_required is False and TICKET_QUERY not in request.scope["query_string"]:
            request.scope[CREDENTIAL] = UNAUTHENTICATED_ADMIN
            return UNAUTHENTICATED_ADMIN
        endpoint = endpoint_of(request.scope)
        permission, policy = permission_of(endpoint), outage_policy_of(endpoint)
        is_public = permission.public or (permission.is_about and self._settings.public_docs)
        credential = PUBLIC_CREDENTIAL if is_public else await self._identified(request, policy)
        if not permission.allows(credential.caller.role):
            raise Forbidden
        if request.method == "GET" and not is_public and policy is OutagePolicy.PROMPT:
            await self._limits.throttle_read(credential)
        if permission.counted is not None:
            await self._limits.count(credential, permission.counted)
        request.scope[CREDENTIAL] = credential
        return credential

    async def _identified(self, request: Request, policy: OutagePolicy) -> Credential:
        try:
            return await self._identify(request, policy)
        except (Unauthenticated, Forbidden):
            await self._limits.throttle_rejection()
            raise

    async def _identify(self, request: Request, policy: OutagePolicy) -> Credential:
        shown = shown_by(request, in_query=self._settings.allow_query_tokens)
        ticket = request.query_params.get("ticket") if policy is OutagePolicy.STREAM and shown is None else None
        session = session_of(request) if shown is None and ticket is None else None
        found = self._callers.recall(shown) if ticket is None and session is None else None
        if found is not None:
            return found

        async def ask() -> Credential:
            if session is not None:
                return await self._sessions.identify(session)
            if ticket is None:
                return await self._callers.identify(shown)
            credential, request.scope[TICKET] = await self._callers.redeem_ticket(ticket)
            await self._sessions.confirm(credential)
            return credential

        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            credential = await retry_until(ask, self._patience(request, policy), self._drain.over)
        except Unavailable:
            if policy is OutagePolicy.POLL:
                raise EmptyPoll from None
            if policy is OutagePolicy.STREAM:
                raise ReconnectLater from None
            raise
        if policy is OutagePolicy.POLL and loop.time() - began > POLL_DELAY_SECONDS:
            # The rest of its time may be too short; the runner polls again at once, and is known then.
            raise EmptyPoll
        return credential

    def _patience(self, request: Request, policy: OutagePolicy) -> float:
        match policy:
            case OutagePolicy.HELD:
                return self._settings.report_hold_seconds
            case OutagePolicy.POLL:
                return min(self._poll_seconds(request), self._drain.give_up_in())
            case OutagePolicy.PROMPT | OutagePolicy.STREAM:
                return AUTHENTICATION_WAIT_SECONDS

    def _poll_seconds(self, request: Request) -> float:
        usual = self._settings.poll_timeout_seconds
        try:
            wait = POLL_WAIT.of(request.query_params)
        except Invalid:
            return usual
        return usual if wait is None else wait


def credential_of(request: Request) -> Credential:
    credential: Credential = request.scope[CREDENTIAL]
    return credential


def filters_of_ticket(request: Request) -> dict[str, str] | None:
    filters: dict[str, str] | None = request.scope.get(TICKET)
    return filters
