"""Answer each request in one pass: guard, route, authenticate, call the endpoint, map its exception, count.

FastAPI describes the routes and runs the lifespan. Its middleware and router took more CPU of a request than everything
else between the connection and the verb.
"""

import asyncio
import time
from functools import cache
from typing import Final

import orjson
from fastapi import FastAPI
from prometheus_client import Counter, Histogram
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.endpoint import Endpoint
from app.http.headers import CLOSE, header_of, security_headers
from app.http.origins import Cors, HostOriginGuard
from app.http.problems import JSON, answer_bug, answer_to
from app.http.refusals import log_refusal
from app.http.request_ids import REQUEST_ID, request_id_of
from app.http.trace_context import sent_context
from app.lifecycle.drain import Drain
from app.lifecycle.hangup import HELD
from app.lifecycle.health import Health
from app.route_table import RouteTable
from app.shutdown_response import shutdown_response
from runtime import logs, metrics
from runtime.addresses import own_name
from runtime.settings import Settings
from runtime.tracing.requests import begin_request, end_request
from runtime.tracing.spans import Tracer

PATHS_WITHOUT_TABLES: Final = ("/health", "/metrics", "/docs", "/static/", "/openapi.json", "/console")
# Below these, but read tables.
PATHS_WITH_TABLES: Final = frozenset({"/console/session", "/console/callback", "/metrics/targets"})
# Held until there is something to answer, or called every few seconds by monitoring: their spans would say nothing.
UNTRACED: Final = frozenset(
    {
        "/runner/runs",
        "/sse/sessions",
        "/health",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/metrics/cluster",
        "/metrics/targets",
    }
)
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestHandler:
    """ASGI application of all HTTP requests.

    An endpoint returns its answer before anything of it is sent, so headers are added to it here, not to a message on
    its way.
    """

    def __init__(self, app: FastAPI, settings: Settings, drain: Drain, health: Health) -> None:
        self._app = app
        self._drain = drain
        self._health = health
        self._routes = RouteTable(app.routes)
        self._cors = Cors(settings.cors_origins, self._auth_required)
        self._guard = HostOriginGuard(
            settings.allowed_hosts, settings.cors_origins or (), self._auth_required, own_name=own_name(settings)
        )
        # Set while tracing is on.
        self.tracer: Tracer | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = time.perf_counter()
        scope["app"] = self._app
        request = logs.Request(request_id_of(scope))
        logs.request.set(request)
        bug: Exception | None = None
        try:
            response = await self._answer(scope, receive, request)
        except asyncio.CancelledError:
            if not self._drain.draining:
                raise
            response = shutdown_response(scope)
        except Exception as fault:  # noqa: BLE001 -- raised again when it is answered, for the server's log
            bug, response = fault, answer_bug()
        response.raw_headers += security_headers(scope["path"])
        response.raw_headers.append((REQUEST_ID, request.request_id))
        if self._drain.draining:
            # Clients shall return to another replica.
            response.raw_headers.append(CLOSE)
        seconds = time.perf_counter() - begun
        _count(scope, response.status_code, seconds)
        if request.trace is not None and HELD not in scope:
            route = scope["route"].path
            end_request(request.trace, scope["method"], route, response.status_code, seconds, request.named())
        await response(scope, receive, send)
        if bug is not None:
            raise bug

    async def _answer(self, scope: Scope, receive: Receive, request: logs.Request) -> Response:
        refusal = self._guard.refusal(scope)
        if refusal is not None:
            return Response(refusal, 403, media_type=JSON)
        origin = header_of(scope, b"origin")
        preflight = self._cors.preflight(scope, origin)
        if preflight is not None:
            return preflight
        try:
            response = self._without_tables(scope) or await self._call(scope, receive, request)
        except Exception as fault:
            known = answer_to(fault)
            if known is None:
                raise
            log_refusal(fault, scope)
            # An instance that is raised for several requests would collect their frames.
            fault.__traceback__ = None
            response = known
        self._cors.add_headers(response, origin)
        return response

    def _without_tables(self, scope: Scope) -> Response | None:
        """Refuse (503) what needs tables while the schema is known to be older than this version: it would fail midway.

        `/health/ready` reports the same, so that a balancer sends none.
        """
        fault = self._health.schema_fault
        path = scope["path"]
        if fault is None or (path.startswith(PATHS_WITHOUT_TABLES) and path not in PATHS_WITH_TABLES):
            return None
        return Response(orjson.dumps({"detail": fault}), 503, {"Retry-After": "5"}, JSON)

    async def _call(self, scope: Scope, receive: Receive, request: logs.Request) -> Response:
        route = self._routes.find(scope)
        if isinstance(route, Endpoint):
            request.names = scope["path_params"]
            if self.tracer is not None and route.path not in UNTRACED:
                request.trace = begin_request(self.tracer, sent_context(scope))
            return await route.answer(scope, receive)
        return await route.answer(scope)

    def _auth_required(self) -> bool:
        return bool(self._app.state.web.callers.auth_required)


class Application(FastAPI):
    """FastAPI application whose HTTP requests go to ``handler``."""

    handler: RequestHandler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.handler(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _count(scope: Scope, status: int, seconds: float) -> None:
    # Never make a label of client input: unknown paths and methods are counted together.
    route = scope["route"].path if "route" in scope else "other"
    method = scope["method"] if scope["method"] in METHODS else "other"
    requests, durations = _series(method, route, status)
    requests.inc()
    if HELD not in scope:
        durations.observe(seconds)


# To look a series up by its labels costs more than to count.
@cache
def _series(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return metrics.REQUESTS.labels(method, route, status), metrics.REQUEST_SECONDS.labels(route)
