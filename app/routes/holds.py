import re
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.endpoint import Endpoint
from app.http.bodies import Fault, Invalid, checked, strict_body
from app.http.problems import accepted
from app.http.query import strict_query
from app.http.serializers import Json, hold_json
from app.inputs.submission import demands_of
from app.openapi.document import body
from app.openapi.responses import AWAY, INVALID, NO_RUN, TOO_LARGE, Responses, answer, problem
from app.schemas import holds as schemas
from app.web import Web
from app.writes.hold_settling import settle
from models.core.callers import Caller
from models.core.storable_text import storable
from models.runs.holds import HoldRun, RemoveHold, RunHeld, SetHold, list_holds

router = APIRouter(tags=["Holds"], route_class=Endpoint)

NO_HOLD: Final[Responses] = {404: problem("No such hold", "Hold not found")}
ENDED: Final = {
    "error": "invalid_transition",
    "status": "completed",
    "message": "A completed run cannot become held; nothing was changed",
}
_NAME: Final = re.compile(schemas.HOLD_NAME)


@router.get("/holds", operation_id="listHolds", responses={200: answer("Holds", schemas.HoldList), **INVALID, **AWAY})
async def read_holds(request: Request, web: Web, caller: Caller) -> Response:
    """List the holds of several runs, for admins, and the newest 1,000 of the caller's single runs."""
    strict_query(request, ())
    return Json({"holds": [hold_json(hold) for hold in await web.reads.autocommit(list_holds, caller)]})


@router.put(
    "/holds/{name}",
    operation_id="setHold",
    openapi_extra=body(schemas.HoldRuns),
    responses={
        200: answer("The hold", schemas.Hold),
        409: problem("Too many holds", "At most 100 holds of several runs are allowed: remove one first"),
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def set_hold(name: str, request: Request, web: Web, caller: Caller) -> Response:
    """Hold the runs of an agent, those with certain demands, or all, until it is removed. Replaces one of its name.

    After the answer no run that it applies to becomes claimed; runs that runners have go on. 503: the hold may be
    stored, but does not apply to all waiting runs yet; repeat, or leave it to the workers.
    """
    sent = await strict_body(request, web.parser, web.settings.submission_bytes, instead_of_none=b"{}")
    if not _NAME.fullmatch(name):
        raise Invalid([Fault("hold_name", ("path", "name"), "Should be 1 to 64 letters, digits or any of _ . -")])
    hold = accepted(await web.verbs.set_holds.one(_hold_of(checked(schemas.HoldRuns, sent), name, caller)))
    await settle(web.reads, web.verbs.settle_holds)
    return Json(hold_json(hold))


@router.delete(
    "/holds/{name}",
    operation_id="removeHold",
    responses={200: answer("The hold that was removed", schemas.Hold), **NO_HOLD, **AWAY},
)
async def remove_hold(name: str, web: Web, caller: Caller) -> Response:
    """Remove a hold of several runs; those that no other hold applies to are ready at once, in their order."""
    hold = accepted(await web.verbs.remove_holds.one(RemoveHold(caller, storable(name))))
    await settle(web.reads, web.verbs.settle_holds)
    return Json(hold_json(hold))


@router.post(
    "/runs/{run_id}/hold",
    operation_id="holdRun",
    openapi_extra=body(schemas.HoldRun, required=False),
    responses={
        200: answer("The run is held", schemas.RunHeld),
        409: problem("The run has ended", ENDED),
        **NO_RUN,
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def hold_run(run_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Keep a run from being claimed until it is released; one that a runner has goes on, and is held if it comes back.

    Repeating it is harmless; the first note stays.
    """
    sent = await strict_body(request, web.parser, web.settings.submission_bytes, instead_of_none=b"{}")
    given = checked(schemas.HoldRun, sent)
    held = accepted(await web.verbs.hold_runs.one(HoldRun(caller, storable(run_id), note=given.note or None)))
    return Json(_held_json(held))


@router.post(
    "/runs/{run_id}/release",
    operation_id="releaseHeldRun",
    responses={200: answer("The run is not held by itself", schemas.RunHeld), **NO_RUN, **AWAY},
)
async def release_run(run_id: str, web: Web, caller: Caller) -> Response:
    """Remove the hold of one run; holds of several runs may apply to it still. Repeating it is harmless."""
    held = accepted(await web.verbs.hold_runs.one(HoldRun(caller, storable(run_id), held=False)))
    return Json(_held_json(held))


def _hold_of(asked: schemas.HoldRuns, name: str, caller: Caller) -> SetHold:
    """Return the hold that a body asks for. Raises Invalid unless it says in one way which runs it holds."""
    demands = None if asked.demands is None else demands_of(asked.demands)
    given = [asked.agent_name is not None, demands is not None, asked.everything is not None]
    if sum(given) != 1:
        raise Invalid([Fault("hold", ("body",), "Should have one of agent_name, demands and everything")])
    if demands is not None and demands == demands_of(None):
        raise Invalid([Fault("hold", ("body", "demands"), "Should demand something; to hold all runs say everything")])
    return SetHold(caller, name, asked.agent_name, demands, asked.everything is not None, asked.note or None)


def _held_json(held: RunHeld) -> dict[str, Any]:
    return {"run_id": held.run_id, "session_id": held.session_id, "status": held.status, "held": held.held}
