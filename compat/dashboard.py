"""Their dashboard: built as it is, served for one coordinator, and opened page by page in a browser."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Response, sync_playwright
from playwright.sync_api import TimeoutError as NotShown

from compat.coordinators import Coordinator
from compat.environment import BUILT_FOR, DASHBOARD, Environment
from compat.recorder import Recorder
from compat.runners import working_runner

PAGES: Final = (
    "/",
    "/chat",
    "/sessions",
    "/runs",
    "/context-store",
    "/agents",
    "/capabilities",
    "/mcp-servers",
    "/scripts",
    "/runners",
    "/unified",
    "/settings",
)
# Pages that show sessions or runs, to which a new one must be added without a reload.
LIVE_PAGES: Final = ("/sessions",)
MARK: Final = "compat-seen-live"
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS: Final = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
PAGE_SECONDS: Final = 20.0


def open_dashboard(environment: Environment, coordinator: Coordinator, recorder: Recorder) -> None:
    """Note for each page the requests that the coordinator refused and the errors of scripts."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        recorder.note("dashboard", "no browser: install Chromium or Google Chrome")
        return
    site = _site_for(environment, coordinator)
    with (
        working_runner(environment, coordinator),
        _served(site) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        for page in PAGES:
            recorder.note(f"dashboard: {page}", _visit(browser, address, page, coordinator))
        for page in LIVE_PAGES:
            recorder.note(f"dashboard: {page}, a new session", _sees_live(browser, address, page, recorder))
        browser.close()


def _site_for(environment: Environment, coordinator: Coordinator) -> Path:
    """Copy the built site, with the address of the coordinator where a build would have it."""
    site = coordinator.directory / "dashboard"
    shutil.copytree(environment.checkout / DASHBOARD / "dist", site)
    url = coordinator.urls[-1]
    for script in site.rglob("*.js"):
        text = script.read_text()
        if BUILT_FOR in text:
            script.write_text(text.replace(BUILT_FOR, url))
    return site


class _Site(SimpleHTTPRequestHandler):
    def send_head(self) -> Any:
        """Answer every path that is no file with the page, whose script knows the path."""
        if not Path(self.translate_path(self.path)).is_file():
            self.path = "/index.html"
        return super().send_head()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 the name of the base class
        """Write nothing."""


@contextmanager
def _served(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Site, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _visit(browser: Browser, address: str, page: str, coordinator: Coordinator) -> dict[str, Any]:
    refused: set[str] = set()
    errors: list[str] = []
    context = browser.new_context()
    _watch(context, coordinator, refused, errors)
    opened = context.new_page()
    opened.goto(address + page)
    # The stream keeps the network busy for ever: wait for the frame of the page, then for its requests.
    opened.wait_for_selector("nav, aside", timeout=PAGE_SECONDS * 1000)
    opened.wait_for_timeout(3000)
    title = opened.locator("h1, h2").first.inner_text() if opened.locator("h1, h2").count() else ""
    context.close()
    return {"heading": title, "refused": sorted(refused), "errors": errors}


def _watch(context: BrowserContext, coordinator: Coordinator, refused: set[str], errors: list[str]) -> None:
    hosts = {urlsplit(url).netloc for url in coordinator.urls}

    def note(response: Response) -> None:
        if urlsplit(response.url).netloc in hosts and response.status >= 400:
            refused.add(f"{response.request.method} {urlsplit(response.url).path} {response.status}")

    context.on("response", note)
    context.on("weberror", lambda error: errors.append(str(error.error)))


def _sees_live(browser: Browser, address: str, page: str, recorder: Recorder) -> str:
    context = browser.new_context()
    opened = context.new_page()
    opened.goto(address + page)
    opened.wait_for_selector("nav, aside", timeout=PAGE_SECONDS * 1000)
    opened.wait_for_timeout(2000)
    body = {"type": "start_session", "agent_name": MARK, "parameters": {"prompt": "hello"}}
    recorder.call("", "POST", "/runs", body)
    try:
        opened.get_by_text(MARK).first.wait_for(timeout=PAGE_SECONDS * 1000)
    except NotShown:
        return "not shown"
    finally:
        context.close()
    return "shown"
