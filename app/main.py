import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.application import Application, RequestHandler
from app.endpoint import Endpoint
from app.lifecycle.drain import Drain
from app.lifecycle.health import Health
from app.openapi import document
from app.route_table import Page
from app.routes import (
    administration,
    agents,
    bulk,
    config,
    console,
    console_sessions,
    explanations,
    failures,
    feed,
    health,
    holds,
    me,
    overview,
    registries,
    runner_protocol,
    runners,
    runs,
    schedules,
    session_events,
    sessions,
    sign_in,
    webhooks,
)
from app.web import Web
from models.core.ids import new_id
from runtime.otel_loading import open_tracer
from runtime.settings import Settings

ABOUT: Final = """Coordinates runs of agents and batch jobs with any number of equal replicas.

Clients submit runs, runners anywhere poll for them and report. Every error is `{"detail": ...}`; 503 comes with
`Retry-After` and means that nothing was acknowledged: repeat the request. Every answer carries the header
`Coordinator-Instance`; one without it comes from something in between (a proxy's own 404, 401 or 413) and says nothing
about a run. `X-Request-Id` is the request's own, if it was up to 128 of `A-Za-z0-9._-`, else a new one; it is in the
log lines of the request."""
STATIC: Final = "/static/docs"
# Time in which a process that ends exports its last spans.
LAST_SPANS_SECONDS: Final = 1.0
# Modules of routes, in the order of the reference.
MODULES: Final = (
    runner_protocol,
    runs,
    bulk,
    holds,
    failures,
    schedules,
    session_events,
    sessions,
    feed,
    runners,
    explanations,
    overview,
    webhooks,
    me,
    administration,
    console_sessions,
    sign_in,
    health,
    agents,
    registries,
    config,
)


def create_app(settings: Settings) -> Application:
    """Return the ASGI application of one web process.

    ``app.state.drain`` ends it (``start()``, from any thread); ``app.state.is_ready()`` tells whether it serves;
    ``app.state.instance`` is the id that the server sends with every answer.
    """
    drain = Drain(settings.drain_seconds)
    state = Health(drain)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        drain.attach(asyncio.get_running_loop())
        web = Web(settings, drain, state, app.state.instance, app.state.address)
        app.state.web = web
        async with _traced(settings, app.handler):
            await web.start()
            try:
                yield
            finally:
                drain.start(0)
                await web.stop()

    app = Application(
        title="Coordinator",
        version=version("coordinator"),
        description=ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.router.route_class = Endpoint
    # A redirect would name the host that the request names.
    app.router.redirect_slashes = False
    app.state.drain = drain
    app.state.instance = new_id("web_")
    # Where others reach this process, if the server knows: /metrics/targets lists it.
    app.state.address = ""
    app.state.is_ready = lambda: state.ready
    for module in MODULES:
        app.router.routes.extend(module.router.routes)
    _describe(app)
    app.router.routes.extend(console.routes())
    app.handler = RequestHandler(app, settings, drain, state)
    return app


@asynccontextmanager
async def _traced(settings: Settings, handler: RequestHandler) -> AsyncIterator[None]:
    handler.tracer = open_tracer(settings, "web")
    yield
    if handler.tracer is not None:
        await asyncio.to_thread(handler.tracer.close, LAST_SPANS_SECONDS)


class DocsFiles(Page):
    def __init__(self) -> None:
        self._files = StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static")

    async def answer(self, scope: Scope) -> Response:
        return await self._files.get_response(self._files.get_path(scope), scope)


def _describe(app: FastAPI) -> None:
    """Describe the API, and serve the reference for people at /docs; its scripts come from a package, so that it works
    without Internet access.
    """
    document.describe(app)
    app.mount(STATIC, DocsFiles(), name="docs-static")

    @app.get("/openapi.json", include_in_schema=False)
    async def read_openapi() -> JSONResponse:
        return JSONResponse(app.openapi())

    @app.get("/docs", include_in_schema=False)
    async def read_docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Coordinator",
            swagger_js_url=f"{STATIC}/swagger-ui-bundle.js",
            swagger_css_url=f"{STATIC}/swagger-ui.css",
            swagger_favicon_url=f"{STATIC}/favicon.png",
        )
