"""Whether this process lives and may be given work, and its numbers (PROTOCOL, Health)."""

from fastapi import APIRouter
from starlette.responses import Response

from app.deps import TheWeb
from app.endpoint import Endpoint
from app.http.serializers import Json
from app.openapi import answers
from runtime import metrics

router = APIRouter(tags=["Health"], route_class=Endpoint)


@router.get("/health", responses=answers.HEALTH)
async def healthy() -> Response:
    """Say that the process answers; for clients that know no more."""
    return Json({"status": "healthy"})


@router.get("/health/live", responses=answers.HEALTH)
async def live() -> Response:
    """Say that the process answers; restart it when it does not."""
    return Json({"status": "alive"})


@router.get("/health/ready", responses=answers.READY)
async def ready(web: TheWeb) -> Response:
    """Say whether requests should come here. A shared dependency that is away is `degraded`, still 200."""
    status, body = web.health.report()
    return Json(body, status)


@router.get("/metrics", response_class=Response, responses=answers.METRICS)
async def numbers() -> Response:
    """Numbers for Prometheus."""
    body, kind = metrics.render()
    return Response(body, media_type=kind)
