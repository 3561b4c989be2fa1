from typing import Final, Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.auth.console_sessions import set_cookie
from app.auth.oidc_sign_in import NOT_NOW, BegunSignIn, OidcSignIn, SignInRefused, is_in_console, packed, unpacked
from app.auth.permissions import Counted
from app.endpoint import Endpoint
from app.http.bodies import Fault, Invalid
from app.http.problems import Missing, TooMany
from app.http.query import Text
from app.http.serializers import Json
from app.openapi.document import query
from app.openapi.responses import INVALID, Responses, answer, problem
from app.schemas.console import SignInMethods
from app.web import Web

router = APIRouter(tags=["Console"], route_class=Endpoint)

COOKIE: Final = "coordinator_sign_in"
ERROR_COOKIE: Final = "coordinator_sign_in_error"
SECONDS: Final = 600
ERROR_SECONDS: Final = 60
RETURN_TO: Final = Text(
    "return_to", "Path in the console, without the console's own: `/runs?status=failed`; default `/`"
)
STATE: Final = Text("state", "Name of the sign-in, as it was given to the identity provider")
CODE: Final = Text("code", "Code of the identity provider, which it accepts once")
NOT_SET_UP: Final = "Sign-in by OIDC is not set up here"
NO_SIGN_IN: Final[Responses] = {404: problem("Not set up", NOT_SET_UP)}


@router.get(
    "/console/sign-in/methods",
    operation_id="getSignInMethods",
    responses={200: answer("Methods, and the error of the last sign-in", SignInMethods)},
)
async def read_methods(request: Request, web: Web) -> Response:
    """Tell how a person may sign in to the console, and for a minute why the last sign-in of this browser failed."""
    issuer = web.settings.oidc_issuer if web.sign_in is not None else None
    error = unpacked(request.cookies.get(_name(web, ERROR_COOKIE), "")[:2000])
    return Json({"api_key": True, "oidc": None if issuer is None else {"issuer": issuer}, "error": error or None})


@router.get(
    "/console/sign-in",
    operation_id="beginSignIn",
    openapi_extra=query(RETURN_TO),
    responses={302: {"description": "To the identity provider"}, **NO_SIGN_IN, **INVALID},
)
async def begin_sign_in(request: Request, web: Web) -> Response:
    """Begin a sign-in by OIDC in this browser, which has 10 minutes for it. Without an answer of the identity provider
    the browser returns to the console, which says so.
    """
    sign_in = _sign_in(web)
    return_to = request.query_params.get(RETURN_TO.name) or "/"
    if not is_in_console(return_to):
        message = "Should be a path in the console that begins with one slash, percent-encoded, without dot segments"
        raise Invalid([Fault("return_to", ("query", RETURN_TO.name), message)])
    try:
        begun, address = await sign_in.prepare(return_to)
    except SignInRefused as refused:
        return await _refuse(web, return_to, str(refused))
    response = _redirect(address)
    # Lax: the way back from the provider is a navigation from another site.
    _set(web, response, COOKIE, begun.cookie(), SECONDS, "lax")
    _set(web, response, ERROR_COOKIE, "", 0)
    return response


@router.get(
    "/console/callback",
    operation_id="completeSignIn",
    openapi_extra=query(STATE, CODE),
    responses={302: {"description": "To the console, with the cookie of a session if signed in"}, **NO_SIGN_IN},
)
async def complete_sign_in(request: Request, web: Web) -> Response:
    """End a sign-in by OIDC: the identity provider leads the browser here, once.

    A callback that this browser did not begin, or that was used before, opens no session.
    """
    sign_in = _sign_in(web)
    begun = BegunSignIn.of_cookie(request.cookies.get(_name(web, COOKIE)))
    return_to = "/" if begun is None else begun.return_to
    try:
        credential, token = await sign_in.complete(begun, request.query_params)
        await web.caller_limits.count(credential, Counted.CHANGES)
    except SignInRefused as refused:
        return await _refuse(web, return_to, str(refused))
    except TooMany:
        return await _refuse(web, return_to, NOT_NOW)
    # The page that this leads to asks for data itself, from its own site: SameSite=Strict does not stop that.
    response = _redirect(web.settings.console_url + return_to)
    set_cookie(response, token, secure=_is_secure(web))
    _set(web, response, COOKIE, "", 0, "lax")
    _set(web, response, ERROR_COOKIE, "", 0)
    return response


def _sign_in(web: Web) -> OidcSignIn:
    if web.sign_in is None:
        raise Missing(NOT_SET_UP)
    return web.sign_in


async def _refuse(web: Web, return_to: str, error: str) -> Response:
    """Lead the browser to the console, which shows the error: a text in the address could come from any link."""
    await web.caller_limits.throttle_rejection()
    response = _redirect(web.settings.console_url + return_to)
    _set(web, response, ERROR_COOKIE, packed(error), ERROR_SECONDS)
    return response


def _redirect(address: str) -> Response:
    return RedirectResponse(address, 302, headers={"Cache-Control": "no-store"})


def _is_secure(web: Web) -> bool:
    return web.settings.console_url.startswith("https://")


def _name(web: Web, name: str) -> str:
    return f"__Host-{name}" if _is_secure(web) else name


def _set(
    web: Web, response: Response, name: str, value: str, seconds: int, samesite: Literal["lax", "strict"] = "strict"
) -> None:
    response.set_cookie(
        _name(web, name), value, seconds, path="/", httponly=True, secure=_is_secure(web), samesite=samesite
    )
