"""Call an endpoint for a request: let in by app/auth/permissions.py, with the arguments that it names."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.auth.authenticate import authenticate
from app.auth.caller_limits import caller_of
from app.http.body_limits import UPLOAD, Upload


class Endpoint(APIRoute):
    """A route of ours: nobody reaches it whom ``authenticate`` does not let in.

    It may ask for ``request``, ``web``, ``caller`` and the parts of its path, by these names, and returns a Response.
    FastAPI describes it and is not asked to solve its dependencies: for a small request that took as long as all else.
    """

    def __init__(self, path: str, endpoint: Callable[..., Awaitable[Response]], **described: Any) -> None:
        super().__init__(path, endpoint, **described)
        self.app = _app_of(endpoint)


def _app_of(endpoint: Callable[..., Awaitable[Response]]) -> ASGIApp:
    wanted = tuple(inspect.signature(endpoint).parameters)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        web = scope["app"].state.web
        credential = await authenticate(web, request)
        upload = Upload(web.uploads, caller_of(credential))
        scope[UPLOAD] = upload
        given = {"request": request, "web": web, "caller": credential.caller, **scope["path_params"]}
        try:
            response = await endpoint(**{name: given[name] for name in wanted})
        finally:
            upload.release()
        await response(scope, receive, send)

    return app
