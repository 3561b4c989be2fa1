from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.auth.callers import UNAUTHENTICATED_ADMIN
from app.auth.console_sessions import delete_cookies, is_https, is_own_page, session_of, set_cookie
from app.auth.permissions import Counted
from app.endpoint import Endpoint
from app.http.bodies import checked, strict_body
from app.http.problems import Forbidden, Unauthenticated
from app.http.serializers import Json
from app.openapi.document import body
from app.openapi.responses import AWAY, INVALID, TOO_LARGE, answer, problem
from app.schemas.console import ConsoleSessionChanged, OpenConsoleSession
from app.web import Web

router = APIRouter(tags=["Console"], route_class=Endpoint)

BODY_BYTES = 16_384


@router.post(
    "/console/session",
    operation_id="openConsoleSession",
    openapi_extra=body(OpenConsoleSession),
    responses={
        200: answer("Signed in; without a cookie while authentication is off", ConsoleSessionChanged),
        401: problem("Not a key or token", "Unauthorized"),
        403: problem("Not valid, or not sent by a page of this origin", "Forbidden"),
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def open_console_session(request: Request, web: Web) -> Response:
    """Sign in to the console: show a key once, get a cookie for 12 hours that pages of this origin alone can use.

    Needs the header `X-Coordinator-Console: 1`.
    """
    given = checked(OpenConsoleSession, await strict_body(request, web.parser, BODY_BYTES))
    if not is_own_page(request):
        raise Forbidden
    try:
        credential = await web.callers.identify(given.api_key)
    except (Unauthenticated, Forbidden):
        await web.caller_limits.throttle_rejection()
        raise
    response = Json({"ok": True})
    if credential is not UNAUTHENTICATED_ADMIN:
        await web.caller_limits.count(credential, Counted.CHANGES)
        set_cookie(response, await web.console_sessions.open(credential), secure=is_https(request))
    return response


@router.delete(
    "/console/session",
    operation_id="closeConsoleSession",
    responses={200: answer("Signed out", ConsoleSessionChanged), **AWAY},
)
async def close_console_session(request: Request, web: Web) -> Response:
    """Sign out of the console: the session of the cookie ends at every instance within 5 s, with its streams and held
    requests.
    """
    token = session_of(request)
    if token is not None:
        await web.console_sessions.close(token)
    response = Json({"ok": True})
    delete_cookies(response)
    return response
