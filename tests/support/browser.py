"""Pages of the console in Chromium, and checks of what they show."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, sync_playwright

from devserver import console_build
from testkit.cluster import Cluster, Process

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
AXE = console_build.SOURCE / "node_modules" / "axe-core" / "axe.min.js"
WIDE = (1280, 800)


@dataclass(frozen=True)
class Replicas:
    """Two web processes, one worker and the runner of `up`, which executes what is submitted."""

    webs: list[Process]
    worker: Process

    @property
    def urls(self) -> list[str]:
        return [web.url for web in self.webs]


def started_replicas(cluster: Cluster) -> Replicas:
    """Start the processes that `up` starts, as those of the cluster."""
    webs, (worker,) = cluster.start_processes(webs=2, workers=1)
    addresses = [part for web in webs for part in ("--url", web.url)]
    demo = ["--name", "demo", "--concurrency", "4", "--", sys.executable, "-m", "runner.demo"]
    cluster.start("runner", ["runner", *addresses, *demo])
    return Replicas(webs, worker)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start a browser; one at a time in each test process."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.fail("No browser: install Chromium (Debian: apt install chromium), or Google Chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def watched_context(browser: Browser, size: tuple[int, int] = WIDE) -> Iterator[BrowserContext]:
    """Open a context whose pages fail the test at its end for an error of a script or a breach of the policy.

    The policy of the page forbids scripts from elsewhere, axe too; its breaches are collected all the same.
    """
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    faults: list[str] = []
    context.on("weberror", lambda error: faults.append(str(error.error)))
    context.on("console", lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None)
    try:
        yield context
        assert faults == []
    finally:
        context.close()


def submit(url: str, prompt: str, **fields: object) -> str:
    body = {"type": "start_session", "parameters": {"prompt": prompt}, **fields}
    answer = httpx.post(f"{url}/runs", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["run_id"])


def number_of(url: str, **filters: str) -> int:
    return len(httpx.get(f"{url}/runs", params=filters).json()["runs"])


def alerts_of(page: Page) -> Locator:
    """Return its alerts but for the line of health: a coordinator without workers is not well."""
    return page.locator("[role=alert]:not([aria-label=Health])")


def faults_of_access(page: Page) -> list[str]:
    """Return the rules of axe that the page breaks."""
    page.evaluate(AXE.read_text())
    found = json.loads(page.evaluate("axe.run().then((result) => JSON.stringify(result.violations))"))
    return [f"{fault['id']}: {[node['html'][:120] for node in fault['nodes']]}" for fault in found]
