"""Events of a session: written by runners, never refused for their content; read in feed order (PROTOCOL, Sessions)."""

from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app import docs, openapi
from app.batching import Unavailable
from app.bodies import Fault, Invalid, read_body
from app.deps import TheCaller, TheWeb
from app.endpoint import Endpoint
from app.entrance import credential_of
from app.event_bodies import new_event
from app.lenient import encode, parse_lenient
from app.lists import Page, answer_list, storable_query, wanted
from app.problems import BadRequest, accepted, item_problem
from app.wire import OK, Json
from models.base import Caller
from models.errors import CoordinatorError, NotFound
from models.events import Event, NewEvent, StoredEvent, list_events
from models.texts import storable

router = APIRouter(tags=["Sessions"], route_class=Endpoint)

MOST_EVENTS: Final = 1000


@router.get("/sessions/{session_id}/events", responses=docs.EVENTS, openapi_extra=openapi.query(docs.EVENT_PAGE))
async def read_events(session_id: str, request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """The session's events, or with `run_id` a run's, in feed order, those not numbered yet last; without `limit` and
    `after` all of them.
    """
    limit, cursor = wanted(request, "after")
    run_id = storable_query(request.query_params.get("run_id"))

    async def fetch(after: str | None, most: int) -> Page:
        events = web.reads.read(list_events, caller, storable(session_id), run_id=run_id, after=after, limit=most)
        page = accepted(await events)
        return Page([_encoded(event) for event in page.events], page.next_cursor, {"feed_cursor": page.feed_cursor})

    return await answer_list("events", fetch, limit, cursor)


@router.post(
    "/sessions/{session_id}/events",
    status_code=201,
    openapi_extra=openapi.fields(docs.EVENT),
    responses=docs.EVENTS_STORED,
)
async def append_event(session_id: str, request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Store an event, or a list of at most 1000; an `event_key` that is stored already makes a retry harmless."""
    raw = await read_body(request, web.settings.body_bytes)
    given = parse_lenient(raw, extra_depth=1)
    count = len(given) if isinstance(given, list) else 1
    await web.caller_limits.append(credential_of(request), session_id, count)
    if isinstance(given, list):
        return await _append_many(given, session_id, web, caller)
    event, size = new_event(given, session_id, caller, web.settings.event_bytes, ("body",))
    accepted(await web.held(lambda: web.verbs.append.one(event, size)))
    return Json(OK, 201)


async def _append_many(given: list[Any], session_id: str, web: TheWeb, caller: Caller) -> Response:
    if len(given) > MOST_EVENTS:
        raise Invalid([Fault("too_long", ("body",), f"Should be a list of at most {MOST_EVENTS} events")])
    results: list[dict[str, Any]] = [{} for _ in given]
    events: dict[int, tuple[NewEvent, int]] = {}
    for place, body in enumerate(given):
        try:
            events[place] = new_event(body, session_id, caller, web.settings.event_bytes, ("body", place))
        except (Invalid, BadRequest) as refused:
            results[place] = item_problem(refused)
    outcomes = await web.held(lambda: _all_stored(web, list(events.values())))
    if outcomes and all(isinstance(outcome, NotFound) for outcome in outcomes):
        accepted(outcomes[0])
    for place, outcome in zip(events, outcomes, strict=True):
        results[place] = item_problem(outcome) if isinstance(outcome, CoordinatorError | Unavailable) else {"code": 201}
    return Json({"ok": all(one["code"] == 201 for one in results), "results": results}, 201)


async def _all_stored(
    web: TheWeb, events: list[tuple[NewEvent, int]]
) -> list[StoredEvent | CoordinatorError | Unavailable]:
    outcomes = await web.verbs.append_bulk.many(events)
    # Each event has its uid: those that are stored already stay as they are when all go again together.
    if any(isinstance(outcome, Unavailable) for outcome in outcomes):
        raise Unavailable
    return outcomes


def _encoded(event: Event) -> bytes:
    """The fields as they were stored, behind what the list adds."""
    added = encode({"id": event.id, "feed_cursor": event.feed_cursor, "run_id": event.run_id})
    return added[:-1] + b"," + event.data[1:].encode()
