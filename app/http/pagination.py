"""Read limits, cursors, times and texts from the query of a list (PROTOCOL, Lists)."""

from typing import Final

from starlette.requests import Request

from app.http.bodies import Fault, Invalid

LARGEST_LIMIT: Final = 1000


def wanted(request: Request, cursor_name: str = "cursor") -> tuple[int | None, str | None]:
    """Return ``limit`` and cursor of the query, None where not given. Raises Invalid."""
    text = request.query_params.get("limit")
    limit = None if not text else whole(text, ("query", "limit"), 1, LARGEST_LIMIT)
    return limit, request.query_params.get(cursor_name) or None


def whole(text: str, loc: tuple[str, str], least: int, most: int) -> int:
    """Return an integer of the query. Raises Invalid."""
    if text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= most:
        return int(text)
    raise Invalid([Fault("int_range", loc, f"Should be a whole number from {least} to {most}")])


def seconds(text: str, loc: tuple[str, str], most: float) -> float:
    """Return a duration of the query, at most ``most`` seconds. Raises Invalid."""
    try:
        value = float(text) if len(text) <= 32 else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise Invalid([Fault("float_range", loc, f"Should be a number of seconds from 0 to {most:g}")])
    return value


def storable_query(text: str | None) -> str | None:
    """Return a text of the query that Postgres can compare; a text with NUL matches nothing."""
    return text.replace("\x00", "\ufffd") if text else None
