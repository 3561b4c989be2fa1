"""Answer requests that shutdown cancels: 204 for polls, 503 otherwise, never 500."""

import asyncio
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth.outages import OutagePolicy, outage_policy_of
from app.auth.permissions import endpoint_of
from app.http.problems import JSON
from app.lifecycle.drain import Drain

_NOTHING: Final = Response(status_code=204)
_ENDING: Final = Response(
    b'{"detail":"This process is ending; nothing was acknowledged, try again"}', 503, {"Retry-After": "1"}, JSON
)


class ShutdownResponse:
    """Middleware that answers requests cancelled by shutdown: 204 for polls, 503 otherwise.

    uvicorn cancels what is still held after the grace period of a drain (Postgres did not answer for all of it) and
    would answer 500. A poll finds nothing, as in every outage; any other request may be repeated at once at another
    replica.
    """

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except asyncio.CancelledError:
            if begun or scope["type"] != "http" or not self._drain.draining:
                raise
            answer = _NOTHING if outage_policy_of(endpoint_of(scope)) is OutagePolicy.POLL else _ENDING
            await answer(scope, receive, send)
