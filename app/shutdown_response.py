"""What a client hears whose request is still held when the process has to end: to ask again, never a 500."""

import asyncio
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth.permissions import OutagePolicy, permission_of
from app.http.problems import JSON
from app.lifecycle.drain import Drain

_NOTHING: Final = Response(status_code=204)
_ENDING: Final = Response(
    b'{"detail":"This process is ending; nothing was acknowledged, try again"}', 503, {"Retry-After": "1"}, JSON
)


class ShutdownResponse:
    """Answers what uvicorn cuts off when its patience with a drain is over: Postgres has been silent for all of it.

    A poll finds nothing (204), as in every outage; anything else may be tried again at once, elsewhere (503). The
    server cancels the request and would answer 500 for it.
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
            answer = _NOTHING if permission_of(scope).outage_policy is OutagePolicy.POLL else _ENDING
            await answer(scope, receive, send)
