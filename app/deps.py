"""Provide what a route takes besides its request: the process's `Web`, the caller, and the parsed body."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from starlette.requests import Request

from app.http.bodies import Fault, Invalid, first_fault, parse_strict, read_body
from app.http.lenient import parse_lenient
from app.web import Web
from models.core.callers import Caller

Parsed = TypeVar("Parsed")


def _given() -> None:
    """Stand for an argument that app/endpoint.py passes itself, so that FastAPI reads no part of the request for it."""


# State of this process, created when it starts.
TheWeb = Annotated[Web, Depends(_given)]
# The caller of the request. While authentication is off every caller is an admin without an owner.
TheCaller = Annotated[Caller, Depends(_given)]


async def strict_body(request: Request, limit: int, *, instead_of_none: bytes = b"") -> Any:
    """Return the parsed body of a submission or setting. Raises Invalid (422), TooLarge (413)."""
    return await parsed(request, _strict, await read_body(request, limit) or instead_of_none)


async def lenient_object(request: Request, limit: int, *, fields_below: int = 0) -> dict[str, Any]:
    """Return the body of a report; its contents are never refused. Raises Invalid only when it is no JSON object."""
    return await parsed(request, partial(parse_object, fields_below=fields_below), await read_body(request, limit))


async def parsed(request: Request, parse: Callable[[bytes], Parsed], raw: bytes) -> Parsed:
    """Return `parse(raw)`; bodies over 64 KiB are parsed in a thread."""
    web: Web = request.scope["app"].state.web
    return await web.parser.run(parse, raw)


def parse_object(raw: bytes, *, fields_below: int = 0) -> dict[str, Any]:
    """Return the JSON object of a report's body. Raises Invalid when it is none."""
    value = parse_lenient(raw, fields_below=fields_below)
    if not isinstance(value, dict):
        raise Invalid([Fault("dict_type", ("body",), "Should be an object")])
    return value


def _strict(raw: bytes) -> Any:
    document = parse_strict(raw)
    fault = first_fault(document.value, ("body",)) if document.suspect else None
    if fault is not None:
        raise Invalid([fault])
    return document.value
