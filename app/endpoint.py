"""Call an endpoint with the arguments that it names, after app/auth/permissions.py allowed the request."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.auth.caller_limits import caller_of
from app.http.body_limits import UPLOAD, Upload


class Endpoint(APIRoute):
    """Route that authenticates every request (``Authenticator``) before its endpoint is called.

    The endpoint may name ``request``, ``web``, ``caller`` and the parameters of its path, and returns a Response.
    FastAPI describes the endpoint but does not resolve its dependencies: for a small request that took as long as
    everything else.
    """

    def __init__(self, path: str, endpoint: Callable[..., Awaitable[Response]], **described: Any) -> None:
        super().__init__(path, endpoint, **described)
        self.app = _app_of(endpoint)


def _app_of(endpoint: Callable[..., Awaitable[Response]]) -> ASGIApp:
    wanted = tuple(inspect.signature(endpoint).parameters)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        web = scope["app"].state.web
        credential = await web.authenticator.authenticate(request)
        upload = Upload(web.uploads, caller_of(credential))
        scope[UPLOAD] = upload
        given = {"request": request, "web": web, "caller": credential.caller, **scope["path_params"]}
        try:
            response = await endpoint(**{name: given[name] for name in wanted})
        finally:
            upload.release()
        await response(scope, receive, send)

    return app
