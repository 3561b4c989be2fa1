from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.endpoint import Endpoint
from app.http.bodies import checked, strict_body
from app.http.lenient import encode
from app.http.problems import accepted
from app.http.query import CURSOR, LIMIT, Flag
from app.http.serializers import Json, runner_json
from app.lists.answers import Page, answer_list
from app.openapi.document import body, query
from app.openapi.responses import AWAY, BAD_CURSOR, INVALID, TOO_LARGE, Responses, answer, problem
from app.schemas.runners import DrainRunner, Runner, RunnerLeaves, RunnerPage
from app.web import Web
from app.writes.claim_ends import wait_for_claims
from models.core.callers import Caller
from models.core.storable_text import storable
from models.runners.drain import SetDrain
from models.runners.leave import LeaveRunner
from models.runners.listing import page_runners

router = APIRouter(prefix="/runners", tags=["Runners"], route_class=Endpoint)


NO_RUNNER: Final[Responses] = {404: problem("No such runner", "Runner not found")}
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
        return Page([encode(runner_json(runner)) for runner in page.runners], page.next_cursor)

    return await answer_list(request, "runners", fetch, limit, cursor, web.settings.list_limit)


@router.delete(
    "/{runner_id}",
    operation_id="removeRunner",
    openapi_extra=query(ITSELF),
    responses={
        200: answer("The runner leaves", RunnerLeaves),
        **NO_RUNNER,
        **AWAY,
    },
)
async def remove_runner(runner_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Make a runner leave: now with `self=true`, otherwise by an order in its next poll."""
    itself = request.query_params.get(ITSELF.name, "").lower() in {"true", "1", "yes", "on"}
    accepted(await web.verbs.deregister.one(LeaveRunner(storable(runner_id), itself, caller)))
    message = "Runner deregistered" if itself else "Runner marked for deregistration"
    return Json({"ok": True, "message": message, "initiated_by": "self" if itself else "external"})


@router.post(
    "/{runner_id}/drain",
    operation_id="drainRunner",
    openapi_extra=body(DrainRunner),
    responses={200: answer("The runner, which drains", Runner), **NO_RUNNER, **TOO_LARGE, **INVALID, **AWAY},
)
async def drain_runner(runner_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Give a runner no new run until the drain is undone; it keeps its runs, and drains on when it registers again.

    After the answer no claim for it commits. 503: the drain may be stored, but a claim that had begun before has not
    ended; repeat. A repeat keeps the time and the reason of the first.
    """
    sent = await strict_body(request, web.parser, web.settings.submission_bytes, instead_of_none=b"{}")
    given = checked(DrainRunner, sent)
    drain = SetDrain(storable(runner_id), draining=True, reason=given.reason or None, caller=caller)
    drained = accepted(await web.verbs.set_drains.one(drain))
    await wait_for_claims(web.reads)
    return Json(runner_json(drained.runner))


@router.delete(
    "/{runner_id}/drain",
    operation_id="undrainRunner",
    responses={200: answer("The runner, which takes runs", Runner), **NO_RUNNER, **AWAY},
)
async def undrain_runner(runner_id: str, web: Web, caller: Caller) -> Response:
    """Undo the drain of a runner, whose waiting polls get ready runs at once. Repeating it is harmless."""
    undrained = accepted(await web.verbs.set_drains.one(SetDrain(storable(runner_id), draining=False, caller=caller)))
    return Json(runner_json(undrained.runner))
