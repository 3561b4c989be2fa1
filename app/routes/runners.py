"""List runners and make them leave (PROTOCOL, Runners)."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.deps import TheCaller, TheWeb
from app.endpoint import Endpoint
from app.http.lenient import encode
from app.http.pagination import wanted
from app.http.problems import accepted
from app.http.serializers import Json, stored
from app.lists.answers import Page, answer_list
from app.openapi import answers, document
from models.core.storable_text import storable
from models.runners.leave import LeaveRunner
from models.runners.listing import RunnerInfo, page_runners
from models.state.runs import iso

router = APIRouter(prefix="/runners", tags=["Runners"], route_class=Endpoint)


@router.get("", responses=answers.RUNNERS, openapi_extra=document.query(answers.RUNNER_PAGE))
async def read_runners(request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """List the runners that have not left and are not forgotten; a lost one shows as `stale` with `lost`.

    Without `limit` and `cursor` all of them are streamed, up to the list limit.
    """
    limit, cursor = wanted(request)

    async def fetch(after: str | None, most: int) -> Page:
        page = accepted(
            await web.reads.autocommit(page_runners, caller.scope, limit=most, after=after, limits=web.limits)
        )
        return Page([encode(_runner_json(runner)) for runner in page.runners], page.next_cursor, {})

    return await answer_list(request, "runners", fetch, limit, cursor, web.settings.list_limit)


@router.delete("/{runner_id}", responses=answers.LEFT, openapi_extra=document.query(answers.LEAVE))
async def remove_runner(runner_id: str, request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Make a runner leave: now with `self=true`, otherwise by an order in its next poll."""
    itself = request.query_params.get("self", "").lower() in {"true", "1", "yes", "on"}
    accepted(await web.verbs.deregister.one(LeaveRunner(storable(runner_id), itself, caller)))
    message = "Runner left" if itself else "Runner will be told to leave on its next poll"
    return Json({"ok": True, "message": message, "initiated_by": "self" if itself else "external"})


def _runner_json(runner: RunnerInfo) -> dict[str, Any]:
    return {
        "runner_id": runner.runner_id,
        "registered_at": iso(runner.registered_at),
        "last_heartbeat": iso(runner.last_seen),
        "hostname": runner.hostname,
        "project_dir": runner.project_dir,
        "executor_profile": runner.executor_profile,
        "executor": stored(runner.executor),
        "tags": list(runner.tags),
        "require_matching_tags": runner.require_matching_tags,
        "status": runner.status,
        "seconds_since_heartbeat": runner.seconds_since_heartbeat,
        "capacity": runner.capacity,
        "runs_in_hand": runner.runs_in_hand,
        "lost": runner.lost,
    }
