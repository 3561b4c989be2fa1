"""What a route needs besides its request: the web process it runs in, who is calling, and the body."""

from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import Request

from app.bodies import Fault, Invalid, first_fault, parse_strict, read_body
from app.entrance import let_in
from app.lenient import parse_lenient
from app.web import Web
from models.base import Caller


async def the_web(request: Request) -> Web:
    """Return the process's own state, made at its start."""
    web: Web = request.app.state.web
    return web


async def the_caller(request: Request) -> Caller:
    """Return who makes this request. While authentication is off everybody is an admin without an owner.

    The application has every route depend on it: none is open that app/access.py does not open.
    """
    web: Web = request.app.state.web
    return (await let_in(web, request)).caller


TheWeb = Annotated[Web, Depends(the_web)]
TheCaller = Annotated[Caller, Depends(the_caller)]


async def strict_body(request: Request, limit: int, *, instead_of_none: bytes = b"") -> Any:
    """Return the parsed body of a submission or setting. Raises Invalid, TooLarge."""
    document = parse_strict(await read_body(request, limit) or instead_of_none)
    fault = first_fault(document.value, ("body",)) if document.suspect else None
    if fault is not None:
        raise Invalid([fault])
    return document.value


async def lenient_object(request: Request, limit: int) -> dict[str, Any]:
    """Return the body of a report, whatever it holds. Raises Invalid only when it is no JSON object."""
    return parse_object(await read_body(request, limit))


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return the object that a report's body is. Raises Invalid only when it is none."""
    value = parse_lenient(raw)
    if not isinstance(value, dict):
        raise Invalid([Fault("dict_type", ("body",), "Should be an object")])
    return value
