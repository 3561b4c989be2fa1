"""Append and read events of a session: contents are never refused, reads are in feed order (PROTOCOL, Sessions)."""

import asyncio
from functools import partial
from typing import Any, Final, NamedTuple

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.auth.authenticate import credential_of
from app.deps import TheCaller, TheWeb, parsed
from app.endpoint import Endpoint
from app.http.bodies import Fault, Invalid, Loc, read_body
from app.http.lenient import encode, parse_lenient
from app.http.pagination import storable_query, wanted
from app.http.problems import BadRequest, accepted, item_problem
from app.http.serializers import OK, Json
from app.inputs.events import new_event
from app.lists.answers import Page, answer_list
from app.openapi import answers, document
from app.writes.attempts import Unavailable
from models.core.callers import Caller
from models.core.errors import CoordinatorError, NotFound
from models.core.storable_text import storable
from models.feed.append import Event, EventPage, LeftOut, NewEvent, StoredEvent, list_events

router = APIRouter(tags=["Sessions"], route_class=Endpoint)

MOST_EVENTS: Final = 1000
# Seconds between looks at events without a position; 0: number them here.
PAUSES: Final = (0.01, 0.03, 0.0)


@router.get("/sessions/{session_id}/events", responses=answers.EVENTS, openapi_extra=document.query(answers.EVENT_PAGE))
async def read_events(session_id: str, request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """List events of a session, or with `run_id` of a run, in feed order, those without a position last.

    Without `limit` and `after` all of them are streamed.
    """
    limit, cursor = wanted(request, "after")
    run_id = storable_query(request.query_params.get("run_id"))

    async def read(after: str | None, most: int) -> EventPage:
        events = web.reads.read(list_events, caller, storable(session_id), run_id=run_id, after=after, limit=most)
        return accepted(await events)

    async def fetch(after: str | None, most: int) -> Page:
        page = await read(after, most)
        for pause in PAUSES:
            if all_numbered(page):
                break
            # A worker is about to number them; if none does, or it has a backlog, the reader does.
            if pause:
                await asyncio.sleep(pause)
            else:
                await web.feed.number()
            page = await read(after, most)
        return Page([_encoded(event) for event in page.events], page.next_cursor, {"feed_cursor": page.feed_cursor})

    return await answer_list(request, "events", fetch, limit, cursor)


@router.post(
    "/sessions/{session_id}/events",
    status_code=201,
    openapi_extra=document.fields(answers.EVENT),
    responses=answers.EVENTS_STORED,
)
async def append_event(session_id: str, request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Append an event, or a list of at most 1000; an `event_key` that is stored already makes a retry harmless."""
    raw = await read_body(request, web.settings.body_bytes)
    credential = credential_of(request)
    await web.caller_limits.append_bytes(credential, len(raw))
    given = await parsed(request, partial(_taken, session_id, caller, web.settings.event_bytes), raw)
    del raw
    await web.caller_limits.append(credential, session_id, len(given.items))
    if given.is_list:
        return await _append_many(given.items, web)
    item = given.items[0]
    if isinstance(item, Exception):
        raise item
    event, size = item
    accepted(await web.retry_until(lambda: web.verbs.append.one(event, size)))
    return Json(OK, 201)


class _Given(NamedTuple):
    """Events of a body with their sizes; in place of an invalid one, the reason."""

    items: list[tuple[NewEvent, int] | Invalid | BadRequest]
    is_list: bool


def _taken(session_id: str, caller: Caller, most_bytes: int, raw: bytes) -> _Given:
    """Parse a body into the events to store. Raises Invalid, TooLarge."""
    given = parse_lenient(raw, extra_depth=1)
    if not isinstance(given, list):
        return _Given([_item(given, session_id, caller, most_bytes, ("body",))], is_list=False)
    if len(given) > MOST_EVENTS:
        raise Invalid([Fault("too_long", ("body",), f"Should be a list of at most {MOST_EVENTS} events")])
    items = [_item(body, session_id, caller, most_bytes, ("body", place)) for place, body in enumerate(given)]
    return _Given(items, is_list=True)


def _item(
    body: Any, session_id: str, caller: Caller, most_bytes: int, at: Loc
) -> tuple[NewEvent, int] | Invalid | BadRequest:
    try:
        return new_event(body, session_id, caller, most_bytes, at)
    except (Invalid, BadRequest) as refused:
        return refused


async def _append_many(items: list[tuple[NewEvent, int] | Invalid | BadRequest], web: TheWeb) -> Response:
    results = [item_problem(item) if isinstance(item, Exception) else {} for item in items]
    events = {place: item for place, item in enumerate(items) if not isinstance(item, Exception)}
    outcomes = await web.retry_until(lambda: _all_stored(web, list(events.values())))
    if outcomes and all(isinstance(outcome, NotFound) for outcome in outcomes):
        accepted(outcomes[0])
    for place, outcome in zip(events, outcomes, strict=True):
        results[place] = item_problem(outcome) if isinstance(outcome, CoordinatorError | Unavailable) else {"code": 201}
    return Json({"ok": all(result["code"] == 201 for result in results), "results": results}, 201)


async def _all_stored(
    web: TheWeb, events: list[tuple[NewEvent, int]]
) -> list[StoredEvent | LeftOut | CoordinatorError | Unavailable]:
    outcomes = await web.verbs.append_bulk.many(events)
    # Each event has its uid: repeating the whole list leaves the stored ones unchanged.
    if any(isinstance(outcome, Unavailable) for outcome in outcomes):
        raise Unavailable
    return outcomes


def all_numbered(page: EventPage) -> bool:
    """Return whether every event has a position; events without one come last."""
    return not page.events or page.events[-1].feed_cursor is not None


def _encoded(event: Event) -> bytes:
    """Return the stored fields of an event, preceded by those that the list adds."""
    added = encode({"id": event.id, "feed_cursor": event.feed_cursor, "run_id": event.run_id})
    return added[:-1] + b"," + event.data[1:].encode()
