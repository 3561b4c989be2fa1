from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from fastapi import APIRouter
from sse_starlette.sse import EventSourceResponse
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.auth.authenticate import credential_of, filters_of_ticket
from app.auth.callers import TICKET_SECONDS, Credential
from app.endpoint import Endpoint
from app.feed.stream import Stream, Wanted
from app.http.bodies import Fault, Invalid, strict_body
from app.http.headers import header_of
from app.http.query import Flag, Text
from app.http.serializers import Json
from app.lifecycle.hangup import HELD, connection_of
from app.openapi.document import body, query
from app.openapi.responses import AWAY, INVALID, TOO_LARGE, answer, problem
from app.schemas.feed import IssueTicket, Ticket
from app.web import Web
from models.auth import audit
from models.core.callers import Caller, Role
from models.feed.pages import FeedFilter

router = APIRouter(tags=["Feed"], route_class=Endpoint)

KINDS: Final = ("session_created", "session_updated", "session_deleted", "event", "run_failed", "run_updated")
# Kinds of events sent by default, without `types`.
USUAL: Final = frozenset(KINDS) - {"run_updated"}
# Other roles cannot ask for audit entries.
KINDS_FOR_ADMINS: Final = (*KINDS, audit.KIND)
SESSION_ID: Final = Text("session_id", "Only events of this session")
RUN_ID: Final = Text("run_id", "Only events of this run")
CREATED_BY: Final = Text("created_by", "Only sessions of this owner; while authentication is off all match")
TYPES: Final = Text(
    "types", "Only these kinds, comma-separated; `run_updated`, and for admins `audit`, are sent only when named"
)
INCLUDE_INIT: Final = Flag(
    "include_init", "Begin with a snapshot of all sessions, unless the stream is resumed (default: true)"
)
LAST_EVENT_ID: Final = Text("last_event_id", "Resume after this cursor; the header `Last-Event-ID` wins")
# Filters that a ticket fixes.
FILTERS: Final = tuple(IssueTicket.model_fields)
LONGEST_FILTER: Final = 1024
EXAMPLE: Final = (
    "retry: 1830\n\nid: v1.5f0c2d9a7b31~init.41\n\nid: v1.5f0c2d9a7b31.41\nevent: init\n"
    'data: {"sessions":[]}\n\nid: v1.5f0c2d9a7b31.42\nevent: session_deleted\n'
    'data: {"session_id":"tour-1","runs_deleted":1}\n\n'
)
# Time for a stream to end by itself when the process ends.
GRACE_SECONDS: Final = 1.0


class FeedResponse(EventSourceResponse):
    """Event stream that disconnects a client that reads nothing, whose unread data would keep the connection open."""

    def __init__(self, *args: Any, cut_after: float, **values: Any) -> None:
        super().__init__(*args, **values)
        self._cut_after = cut_after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client or the process ends it, then close the connection: over a kept one, a balancer would
        send a request just when the process that ended the stream closes it.
        """
        self.headers["Connection"] = "close"
        connection_of(scope)["cut_after"](self._cut_after)
        await super().__call__(scope, receive, send)

    async def _send_with_timeout(self, send: Send, message: Message) -> None:
        """Send a part of the body. The connection enforces the timeout: a cancel scope around each message cost as much
        as sending it.
        """
        await send(message)


@router.get(
    "/sse/sessions",
    operation_id="followFeed",
    openapi_extra=query(SESSION_ID, RUN_ID, CREATED_BY, TYPES, INCLUDE_INIT, LAST_EVENT_ID),
    responses={
        200: {
            "description": "An endless stream of messages, each with `id:`, `event:` and `data:` (one JSON object)",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": EXAMPLE}},
        },
        **INVALID,
    },
)
async def follow_feed(request: Request, web: Web, caller: Caller) -> Response:
    """Follow the feed.

    `Last-Event-ID`, or `last_event_id` in the query, resumes exactly after that event, on any instance; without one a
    snapshot comes first.
    """
    given, credential = _effective_query(request), credential_of(request)
    request.scope[HELD] = True
    owned = web.callers.auth_required is not False
    wanted = Wanted(
        caller=caller,
        which=_filter(given, caller, owned=owned),
        cursor=header_of(request.scope, b"last-event-id") or LAST_EVENT_ID.of(given),
        include_init=INCLUDE_INIT.of(given) is not False,
    )
    stream = Stream(web.feed, wanted)
    return FeedResponse(
        _watched(web, credential, stream),
        headers={"Cache-Control": "no-cache"},
        # The library would send its own pings in the middle of a message.
        ping=0,
        cut_after=web.settings.send_timeout_seconds,
        shutdown_grace_period=GRACE_SECONDS,
    )


@router.post(
    "/sse/ticket",
    operation_id="issueTicket",
    status_code=201,
    openapi_extra=body(IssueTicket),
    responses={
        201: answer("Valid for one stream, within a minute", Ticket),
        **TOO_LARGE,
        422: problem(
            "Invalid request", [{"type": "enum", "loc": ["query", "types"], "msg": "Should be some of event"}]
        ),
        **AWAY,
    },
)
async def issue_ticket(request: Request, web: Web, caller: Caller) -> Response:
    """Issue a ticket for one stream with these filters, for a browser's `EventSource`: `/sse/sessions?ticket=…`."""
    given = await strict_body(request, web.parser, web.settings.submission_bytes, instead_of_none=b"{}")
    if not isinstance(given, dict):
        raise Invalid([Fault("dict_type", ("body",), "Should be an object")])
    filters = {name: given[name] for name in FILTERS if given.get(name) is not None}
    wrong = [
        Fault("string_type", ("body", name), "Should be text") for name, value in filters.items() if not _fits(value)
    ]
    if wrong:
        raise Invalid(wrong)
    _filter(QueryParams(filters), caller, owned=web.callers.auth_required is not False)
    ticket = await web.callers.issue_ticket(credential_of(request), filters)
    return Json({"ticket": ticket, "expires_in": TICKET_SECONDS}, 201)


async def _watched(web: Web, credential: Credential, stream: Stream) -> AsyncIterator[bytes]:
    revoked, beyond = (partial(stream.end_early, 0.0, reason) for reason in ("revoked", "limit"))
    with web.callers.watching(credential, revoked), web.caller_limits.streaming(credential, beyond):
        async with aclosing(stream.messages()) as messages:
            async for message in messages:
                yield message


def _effective_query(request: Request) -> QueryParams:
    """Return the query; with a ticket, the filters are the ticket's, whatever the query says."""
    bound = filters_of_ticket(request)
    if bound is None:
        return request.query_params
    rest = {name: value for name, value in request.query_params.items() if name not in FILTERS}
    return QueryParams(rest | bound)


def _fits(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_FILTER


def _filter(given: QueryParams, caller: Caller, *, owned: bool) -> FeedFilter:
    """Return the filter of the query within what the caller may see; ``owned`` while sessions have owners.

    Raises Invalid.
    """
    kinds = USUAL
    if types := TYPES.of(given):
        asked = frozenset(filter(None, (name.strip() for name in types.split(","))))
        known = _kinds_of(caller)
        if not asked or not asked <= set(known):
            raise Invalid([Fault("enum", ("query", "types"), f"Should be some of {', '.join(known)}")])
        kinds = asked
    # Not owner_filter, which limits no runner: there is no filter of the feed by trees.
    owner = caller.subject
    created_by = CREATED_BY.of(given) if owned else None
    if owner is not None and created_by not in {None, owner}:
        kinds = frozenset()
    return FeedFilter(
        kinds=kinds,
        session_id=SESSION_ID.of(given),
        run_id=RUN_ID.of(given),
        owner=owner if owner is not None else created_by,
    )


def _kinds_of(caller: Caller) -> tuple[str, ...]:
    return KINDS_FOR_ADMINS if caller.role is Role.ADMIN else KINDS
