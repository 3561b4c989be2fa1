"""Build the ASGI application: middleware, routes, and start and stop of the process's `Web`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, JSONResponse
from starlette.staticfiles import StaticFiles

from app.endpoint import Endpoint
from app.http.middleware import Cors, HostOriginGuard, MetricsMiddleware, SchemaGuard
from app.http.problems import add_handlers
from app.lifecycle.drain import Drain
from app.lifecycle.health import Health
from app.openapi import document
from app.routes import feed, health, registries, runner_protocol, runners, runs, session_events, sessions
from app.shutdown_response import ShutdownResponse
from app.web import Web
from models.core.ids import new_id
from runtime.settings import Settings

ABOUT: Final = """Coordinates runs of agents and batch jobs with any number of equal replicas.

Clients submit runs, runners anywhere poll for them and report. Every error is `{"detail": ...}`; 503 comes with
`Retry-After` and means that nothing was acknowledged: repeat the request. Every answer carries the header
`Coordinator-Instance`; one without it comes from something in between (a proxy's own 404, 401 or 413) and says nothing
about a run."""
STATIC: Final = "/static/docs"


def create_app(settings: Settings) -> FastAPI:
    """Return the ASGI application of one web process.

    ``app.state.drain`` ends it (``start()``, from any thread); ``app.state.is_ready()`` tells whether it serves;
    ``app.state.instance`` is the id that the server sends with every answer.
    """
    drain = Drain(settings.drain_seconds)
    state = Health(drain)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        drain.attach(asyncio.get_running_loop())
        web = Web(settings, drain, state, app.state.instance)
        app.state.web = web
        await web.start()
        try:
            yield
        finally:
            drain.start(0)
            await web.stop()

    app = FastAPI(
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
    app.state.is_ready = lambda: state.ready
    # Ordered by how often they are requested: routes are tried one after another.
    for module in (runner_protocol, runs, session_events, sessions, feed, runners, health, registries):
        app.router.routes.extend(module.router.routes)
    add_handlers(app)
    document.describe(app)
    _add_docs(app)
    _add_middleware(app, settings, drain, state)
    return app


def _add_middleware(app: FastAPI, settings: Settings, drain: Drain, health: Health) -> None:
    """Add the middleware; the one added last sees a request first."""

    def auth_required() -> bool:
        return bool(app.state.web.callers.auth_required)

    app.add_middleware(SchemaGuard, health=health)
    app.add_middleware(Cors, origins=settings.cors_origins, auth_required=auth_required)
    app.add_middleware(
        HostOriginGuard,
        hosts=settings.allowed_hosts,
        origins=settings.cors_origins or (),
        auth_required=auth_required,
    )
    app.add_middleware(ShutdownResponse, drain=drain)
    app.add_middleware(MetricsMiddleware, drain=drain)


def _add_docs(app: FastAPI) -> None:
    """Serve the reference for people at /docs; its scripts come from a package, so that it works without Internet
    access.
    """
    app.mount(STATIC, StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static"), name="docs-static")

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
