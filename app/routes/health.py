"""Report liveness, readiness and metrics of this process (PROTOCOL, Health and other endpoints)."""

from fastapi import APIRouter
from starlette.responses import Response

from app.endpoint import Endpoint
from app.http.serializers import Json
from app.openapi.responses import answer
from app.schemas.health import Health, Readiness
from app.web import Web
from runtime import metrics

router = APIRouter(tags=["Health"], route_class=Endpoint)


@router.get("/health", operation_id="getHealth", responses={200: answer("The process answers", Health)})
async def read_health() -> Response:
    """Report that the process answers; for clients that know no other health endpoint."""
    return Json({"status": "healthy"})


@router.get("/health/live", operation_id="getLiveness", responses={200: answer("The process answers", Health)})
async def read_liveness() -> Response:
    """Report that the process answers; restart it when it does not."""
    return Json({"status": "alive"})


@router.get(
    "/health/ready",
    operation_id="getReadiness",
    responses={200: answer("Ready for requests", Readiness), 503: answer("Starting or draining", Readiness)},
)
async def read_readiness(web: Web) -> Response:
    """Report whether this process takes requests. An outage of Postgres or Redis is `degraded`, still 200."""
    status, body = web.health.report()
    return Json(body, status)


@router.get(
    "/metrics",
    operation_id="getMetrics",
    response_class=Response,
    responses={200: {"description": "Prometheus text", "content": {"text/plain": {}}}},
)
async def read_metrics() -> Response:
    """Return the metrics of this process for Prometheus."""
    body, kind = metrics.render()
    return Response(body, media_type=kind)
