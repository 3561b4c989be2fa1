from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from app.endpoint import Endpoint
from app.http.serializers import Json
from app.openapi.responses import AWAY, answer
from app.schemas.health import Health, Readiness, Targets
from app.web import Web
from models.monitoring.targets import list_targets
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


@router.get(
    "/metrics/cluster",
    operation_id="getClusterMetrics",
    response_class=Response,
    responses={200: {"description": "Prometheus text", "content": {"text/plain": {}}}},
)
async def read_cluster_metrics(web: Web) -> Response:
    """Return the metrics of the whole installation, as of the last 5 s; the same from each process, so never sum them.

    While Postgres is away these are the last values, with their age in `coordinator_cluster_snapshot_age_seconds`.
    """
    body, kind = await web.cluster_metrics.render()
    return Response(body, media_type=kind)


@router.get(
    "/metrics/targets",
    operation_id="getMetricsTargets",
    responses={200: answer("Groups of targets, as HTTP service discovery of Prometheus reads them", Targets), **AWAY},
)
async def read_metrics_targets(web: Web) -> Response:
    """Return the addresses of all processes that serve metrics, for `http_sd_configs` of Prometheus.

    Jobs are `coordinator-web`, `coordinator-worker`, and `coordinator-cluster` for `/metrics/cluster`. A process that
    was killed stays for five minutes.
    """
    found = await web.reads.autocommit(list_targets)
    groups: list[dict[str, Any]] = [
        {"targets": found[job], "labels": {"job": f"coordinator-{job}"}} for job in ("web", "worker") if job in found
    ]
    if "web" in found:
        of_all = {"job": "coordinator-cluster", "__metrics_path__": "/metrics/cluster"}
        groups.append({"targets": found["web"], "labels": of_all})
    return Json(groups)
