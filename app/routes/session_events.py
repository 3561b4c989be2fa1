import asyncio
from functools import partial
from typing import Any, Final, NamedTuple

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.auth.authenticate import credential_of
from app.endpoint import Endpoint
from app.http.bodies import Fault, Invalid, Loc, read_body
from app.http.lenient import parse_lenient
from app.http.problems import BadRequest, accepted, item_problem
from app.http.query import CURSOR_IN_BODY, LIMIT, Choice, Parameter, Text
from app.http.serializers import OK, Json, event_json
from app.inputs.events import new_event
from app.lists.answers import Page, answer_list
from app.openapi.document import body, query
from app.openapi.responses import AWAY, BAD_CURSOR, INVALID, NO_SESSION, STALE, answer, list_answer, problem
from app.schemas.events import EventPage, EventsStored, NewEvent
from app.web import Web
from app.writes.attempts import Unavailable
from models.core.callers import Caller
from models.core.errors import CoordinatorError, NotFound
from models.core.storable_text import storable
from models.feed import append, timeline
from models.feed.append import LeftOut, StoredEvent
from models.feed.timeline import list_events

router = APIRouter(tags=["Sessions"], route_class=Endpoint)

MOST_EVENTS: Final = 1000
# Seconds between looks at events without a position; 0: number them here.
PAUSES: Final = (0.01, 0.03, 0.0)


AFTER: Final = Text("after", "`feed_cursor` of the last event seen")
RUN_ID: Final = Text("run_id", "Only events of this run")
BEFORE: Final = Text("before", "`feed_cursor` of the first event not wanted")
ORDER: Final = Choice("order", "`asc` (feed order) or `desc`: from the end backwards", among=("asc", "desc"))
LIST: Final[tuple[Parameter, ...]] = (LIMIT, AFTER, RUN_ID, BEFORE, ORDER)


@router.get(
    "/sessions/{session_id}/events",
    operation_id="listEvents",
    openapi_extra=query(*LIST, CURSOR_IN_BODY),
    responses={200: list_answer("In feed order", EventPage), **BAD_CURSOR, **NO_SESSION, **INVALID, **AWAY},
)
async def read_events(session_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """List events of a session, or with `run_id` of a run, in feed order, those without a position last.

    Without `limit`, `after` and `before` all of them are streamed. With `order=desc` the newest come first, and
    `next_cursor` is the next `before`: `?run_id=&order=desc&limit=200` is the end of a run's log.
    """
    given = request.query_params
    limit, after, before = LIMIT.of(given), AFTER.of(given), BEFORE.of(given)
    newest_first = ORDER.of(given) == "desc"
    which = partial(list_events, run_id=RUN_ID.of(given), newest_first=newest_first)

    async def read(cursor: str | None, most: int) -> timeline.EventPage:
        bounds = {"after": after, "before": cursor} if newest_first else {"after": cursor, "before": before}
        return accepted(await web.reads.read(which, caller, storable(session_id), limit=most, **bounds))

    async def fetch(cursor: str | None, most: int) -> Page:
        page = await read(cursor, most)
        for pause in PAUSES:
            if all_numbered(page):
                break
            # A worker is about to number them; if none does, or it has a backlog, the reader does.
            if pause:
                await asyncio.sleep(pause)
            else:
                await web.feed.number()
            page = await read(cursor, most)
        return Page([event_json(event) for event in page.events], page.next_cursor, page.feed_cursor)

    return await answer_list(request, "events", fetch, limit, before if newest_first else after, own=LIST)


@router.post(
    "/sessions/{session_id}/events",
    operation_id="appendEvents",
    status_code=201,
    openapi_extra=body(NewEvent, many=MOST_EVENTS),
    responses={
        201: answer("Stored; for a list with one result each", EventsStored),
        400: problem("The event is of another session", "Event session_id must match URL session_id"),
        **NO_SESSION,
        409: problem("The claim_token is not the run's current one", STALE),
        413: problem("Over 64 MiB", "Request body is larger than 67108864 bytes"),
        **INVALID,
        **AWAY,
    },
)
async def append_events(session_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Append an event, or a list of at most 1000; an `event_key` that is stored already makes a retry harmless."""
    raw = await read_body(request, web.settings.body_bytes)
    credential = credential_of(request)
    await web.caller_limits.append_bytes(credential, len(raw))
    given = await web.parser.run(partial(_taken, session_id, caller, web.settings.event_bytes), raw)
    del raw
    await web.caller_limits.append(credential, session_id, len(given.items))
    if given.is_list:
        return await _append_many(given.items, web)
    item = given.items[0]
    if isinstance(item, Exception):
        raise item
    event, size = item
    accepted(await web.retry_until(lambda: web.verbs.append.submit(event, size)))
    return Json(OK, 201)


class _Given(NamedTuple):
    items: list[tuple[append.NewEvent, int] | Invalid | BadRequest]
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
) -> tuple[append.NewEvent, int] | Invalid | BadRequest:
    try:
        return new_event(body, session_id, caller, most_bytes, at)
    except (Invalid, BadRequest) as refused:
        return refused


async def _append_many(items: list[tuple[append.NewEvent, int] | Invalid | BadRequest], web: Web) -> Response:
    results = [item_problem(item) if isinstance(item, Exception) else {} for item in items]
    events = {place: item for place, item in enumerate(items) if not isinstance(item, Exception)}
    outcomes = await web.retry_until(lambda: _all_stored(web, list(events.values())))
    if outcomes and all(isinstance(outcome, NotFound) for outcome in outcomes):
        accepted(outcomes[0])
    for place, outcome in zip(events, outcomes, strict=True):
        results[place] = item_problem(outcome) if isinstance(outcome, CoordinatorError | Unavailable) else {"code": 201}
    return Json({"ok": all(result["code"] == 201 for result in results), "results": results}, 201)


async def _all_stored(
    web: Web, events: list[tuple[append.NewEvent, int]]
) -> list[StoredEvent | LeftOut | CoordinatorError | Unavailable]:
    outcomes = await web.verbs.append_bulk.many(events)
    # Each event has its uid: repeating the whole list leaves the stored ones unchanged.
    if any(isinstance(outcome, Unavailable) for outcome in outcomes):
        raise Unavailable
    return outcomes


def all_numbered(page: timeline.EventPage) -> bool:
    """Return whether every event has a position; events without one come last, or first from the end backwards."""
    return not page.events or None not in {page.events[0].feed_cursor, page.events[-1].feed_cursor}
