from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.auth.authenticate import credential_of
from app.auth.caller_limits import caller_of
from app.endpoint import Endpoint
from app.http.query import strict_query
from app.http.serializers import Json
from app.inputs.run_search import FAILURE, search_of
from app.openapi.document import query
from app.openapi.responses import AWAY, INVALID, answer
from app.schemas import failures as schemas
from app.web import Web
from models.core.callers import Caller
from models.runs.failures import Failures, group_failures
from models.state.runs import iso

router = APIRouter(tags=["Runs"], route_class=Endpoint)


@router.get(
    "/runs/failures",
    operation_id="groupFailures",
    openapi_extra=query(*FAILURE),
    responses={200: answer("Groups, the largest first", schemas.Failures), **INVALID, **AWAY},
)
async def read_failures(request: Request, web: Web, caller: Caller) -> Response:
    """Group failed runs by their error without its numbers, ids and paths: the newest 2,000 that satisfy the filters.

    Replay a group by `POST /bulk` with its `run_ids`.
    """
    which = search_of(strict_query(request, FAILURE), caller)

    async def fetch() -> Failures:
        return await web.reads.autocommit(group_failures, caller, which)

    return Json(_json(await web.lists.make(caller_of(credential_of(request)), fetch)))


def _json(failures: Failures) -> dict[str, Any]:
    groups = [
        asdict(group) | {"newest_at": iso(group.newest_at), "oldest_at": iso(group.oldest_at)}
        for group in failures.groups
    ]
    shown: dict[str, Any] = {"groups": groups, "runs": failures.runs}
    until = iso(failures.searched_until)
    return shown if until is None else shown | {"searched_until": until}
