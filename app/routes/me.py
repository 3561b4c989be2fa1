import asyncio
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.auth.authenticate import credential_of
from app.endpoint import Endpoint
from app.http.serializers import Json
from app.openapi.responses import AWAY, answer
from app.schemas.callers import Me
from app.web import Web
from models.core.callers import UNNAMED
from models.state.runs import iso

router = APIRouter(tags=["System"], route_class=Endpoint)

# For clients that serve coordinators of several versions.
FEATURES: Final = (
    "console_sessions",
    "run_search",
    "explanations",
    "run_timeline",
    "session_tree",
    "event_tail",
    "run_counts",
    "queues",
    "series",
    "administration",
    "sign_in_methods",
    "replays",
    "bulk",
    "runner_drains",
    "retries",
    "holds",
    "failures",
    "schedules",
    "registries",
    "webhooks",
)


@router.get("/me", operation_id="getMe", responses={200: answer("Caller and coordinator", Me), **AWAY})
async def read_me(request: Request, web: Web) -> Response:
    """Return role, owner and credential of the caller, and the version and features of the coordinator."""
    credential = credential_of(request)
    left = credential.until - asyncio.get_running_loop().time()
    ends = None if left == inf else (datetime.now(UTC) + timedelta(seconds=left)).replace(microsecond=0)
    return Json(
        {
            "role": credential.caller.role,
            "owner": credential.caller.owner,
            "credential": credential.caller.by or UNNAMED,
            "expires_at": iso(ends),
            "auth": web.callers.auth_required is not False,
            "version": request.app.version,
            "features": FEATURES,
        }
    )
