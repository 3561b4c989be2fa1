"""Report liveness, readiness and metrics of this process (PROTOCOL, Health)."""

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
    """Report that the process answers; for clients that know no other health endpoint."""
    return Json({"status": "healthy"})


@router.get("/health/live", responses=answers.HEALTH)
async def live() -> Response:
    """Report that the process answers; restart it when it does not."""
    return Json({"status": "alive"})


@router.get("/health/ready", responses=answers.READY)
async def ready(web: TheWeb) -> Response:
    """Report whether this process takes requests. An outage of Postgres or Redis is `degraded`, still 200."""
    status, body = web.health.report()
    return Json(body, status)


@router.get("/metrics", response_class=Response, responses=answers.METRICS)
async def numbers() -> Response:
    """Return the metrics of this process for Prometheus."""
    body, kind = metrics.render()
    return Response(body, media_type=kind)
