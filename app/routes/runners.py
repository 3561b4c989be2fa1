"""List runners and make them leave (PROTOCOL, Runners)."""

from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.endpoint import Endpoint
from app.http.lenient import encode
from app.http.problems import accepted
from app.http.query import CURSOR, LIMIT, Flag
from app.http.serializers import Json, runner_json
from app.lists.answers import Page, answer_list
from app.openapi.document import query
from app.openapi.responses import AWAY, BAD_CURSOR, INVALID, answer, problem
from app.schemas.runners import RunnerLeaves, RunnerPage
from app.web import Web
from models.core.callers import Caller
from models.core.storable_text import storable
from models.runners.leave import LeaveRunner
from models.runners.listing import page_runners

router = APIRouter(prefix="/runners", tags=["Runners"], route_class=Endpoint)


ITSELF: Final = Flag("self", "Leave now instead of by an order in the next poll")


@router.get(
    "",
    operation_id="listRunners",
    openapi_extra=query(LIMIT, CURSOR),
    responses={200: answer("Page, or all runners", RunnerPage), **BAD_CURSOR, **INVALID, **AWAY},
)
async def read_runners(request: Request, web: Web, caller: Caller) -> Response:
    """List the runners that have not left and are not forgotten; a lost one shows as `stale` with `lost`.

    Without `limit` and `cursor` all of them are streamed, up to the list limit.
    """
    limit, cursor = LIMIT.of(request.query_params), CURSOR.of(request.query_params)

    async def fetch(after: str | None, most: int) -> Page:
        page = accepted(
            await web.reads.autocommit(page_runners, caller.subject, limit=most, after=after, limits=web.limits)
        )
        return Page([encode(runner_json(runner)) for runner in page.runners], page.next_cursor, {})

    return await answer_list(request, "runners", fetch, limit, cursor, web.settings.list_limit)


@router.delete(
    "/{runner_id}",
    operation_id="removeRunner",
    openapi_extra=query(ITSELF),
    responses={
        200: answer("The runner leaves", RunnerLeaves),
        404: problem("No such runner", "Runner not found"),
        **AWAY,
    },
)
async def remove_runner(runner_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Make a runner leave: now with `self=true`, otherwise by an order in its next poll."""
    itself = request.query_params.get(ITSELF.name, "").lower() in {"true", "1", "yes", "on"}
    accepted(await web.verbs.deregister.one(LeaveRunner(storable(runner_id), itself, caller)))
    message = "Runner left" if itself else "Runner will be told to leave on its next poll"
    return Json({"ok": True, "message": message, "initiated_by": "self" if itself else "external"})
