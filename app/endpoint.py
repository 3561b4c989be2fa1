import inspect
import re
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from app.auth.caller_limits import caller_of
from app.http.body_limits import UPLOAD, Upload

# Arguments that an endpoint may name besides the parameters of its path.
GIVEN: Final = frozenset({"request", "web", "caller"})


class Endpoint(APIRoute):
    """Route that authenticates every request (``Authenticator``) before its endpoint is called.

    The endpoint may name ``request``, ``web``, ``caller`` and the parameters of its path, and returns a Response.
    FastAPI describes its path parameters but calls nothing: for a small request, resolving dependencies took as long as
    everything else. ``answer`` calls it (app/application.py).
    """

    methods: set[str]

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Awaitable[Response]],
        *,
        operation_id: str | None = None,
        **described: Any,
    ) -> None:
        described["summary"] = described.get("summary") or _in_words(operation_id or "")
        super().__init__(path, _with_path_only(endpoint), operation_id=operation_id, **described)
        self.answer = _answering(endpoint)


def _with_path_only(endpoint: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    @wraps(endpoint)
    async def described(**arguments: Any) -> Response:
        return await endpoint(**arguments)

    signature = inspect.signature(endpoint)
    in_path = [parameter for name, parameter in signature.parameters.items() if name not in GIVEN]
    described.__signature__ = signature.replace(parameters=in_path)  # type: ignore[attr-defined]  # read by inspect
    return described


def _in_words(operation_id: str) -> str:
    return re.sub(r"[A-Z]", lambda capital: f" {capital[0].lower()}", operation_id).capitalize()


def _answering(endpoint: Callable[..., Awaitable[Response]]) -> Callable[[Scope, Receive], Awaitable[Response]]:
    wanted = tuple(inspect.signature(endpoint).parameters)

    async def answer(scope: Scope, receive: Receive) -> Response:
        request = Request(scope, receive)
        web = scope["app"].state.web
        credential = await web.authenticator.authenticate(request)
        upload = Upload(web.uploads, caller_of(credential))
        scope[UPLOAD] = upload
        given = {"request": request, "web": web, "caller": credential.caller, **scope["path_params"]}
        try:
            return await endpoint(**{name: given[name] for name in wanted})
        finally:
            upload.release()

    return answer
