"""Measure the list of runs of the console in Chromium: frames while it is scrolled, CPU while runs change."""

import argparse
import itertools
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any, Final

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.cluster import Cluster, running, scratch_servers
from devserver import console_build
from testkit.many_runs import fill_ended_runs
from testkit.waiting import eventually

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
UPDATES_A_SECOND: Final = 50
BATCH: Final = 1000
# Scroll by so many pixels in each frame: as a finger does, and as one who looks for a run of last week.
SPEEDS: Final = (40, 600)
SCROLL: Final = """
([pixels, seconds]) => new Promise((resolve) => {
  const box = document.querySelector("[role=grid]");
  const begun = performance.now();
  const frames = [];
  let last = begun;
  const step = (now) => {
    frames.push(now - last);
    last = now;
    box.scrollTop += pixels;
    if (now - begun < seconds * 1000) {
      requestAnimationFrame(step);
    } else {
      resolve(frames.slice(1));
    }
  };
  requestAnimationFrame(step);
})
"""
LOAD: Final = """
() => {
  const box = document.querySelector("[role=grid]");
  box.scrollTop = 1e9;
  return Number(box.ariaRowCount) - 1;
}
"""


@dataclass(frozen=True, slots=True)
class Cpu:
    """Seconds of CPU: of the page's main thread, of all renderers (page and shared worker), of the whole browser."""

    at: float
    page: float
    renderers: float
    all: float


class Meter:
    def __init__(self, browser: Browser, page: Page) -> None:
        self._browser = browser.new_browser_cdp_session()
        self._page = page.context.new_cdp_session(page)
        self._page.send("Performance.enable")

    def read(self) -> Cpu:
        processes = self._browser.send("SystemInfo.getProcessInfo")["processInfo"]
        metrics = {each["name"]: each["value"] for each in self._page.send("Performance.getMetrics")["metrics"]}
        return Cpu(
            time.monotonic(),
            metrics["TaskDuration"],
            sum(each["cpuTime"] for each in processes if each["type"] == "renderer"),
            sum(each["cpuTime"] for each in processes),
        )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench console", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="runs in the list (default: 100000)")
    parser.add_argument("--seconds", type=float, default=10, help="length of each measurement (default: 10)")
    asked = parser.parse_args(arguments)
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        print("No browser: install Chromium (Debian: apt install chromium), or Google Chrome", file=sys.stderr)
        return 1
    console_build.build()
    with (
        scratch_servers() as (servers, directory),
        running(servers, directory, web=1, workers=1) as cluster,
        sync_playwright() as playwright,
    ):
        fill_ended_runs(cluster.database_url, asked.rows)
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        for line in _measure(cluster, browser, asked.rows, asked.seconds):
            print(line, flush=True)
        browser.close()
    return 0


def _measure(cluster: Cluster, browser: Browser, rows: int, seconds: float) -> Iterator[str]:
    url = cluster.urls[0]
    for fields in ("", "&fields=summary"):
        page_bytes = len(httpx.get(f"{url}/runs?limit=500{fields}", timeout=30).content)
        yield f"a row of `GET /runs?limit=500{fields}`: {page_bytes // 500} bytes"
    changing = _waiting_runs(url, int(UPDATES_A_SECOND * seconds * 2) + BATCH)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(f"{url}/console/runs")
    page.wait_for_selector("[data-run]")
    begun = time.monotonic()
    eventually(lambda: page.evaluate(LOAD) >= rows + len(changing), 300, what="all rows")
    loaded = time.monotonic() - begun
    heap = page.evaluate("performance.memory.usedJSHeapSize") / 2**20
    drawn = page.locator("[data-run]").count()
    yield f"{rows + len(changing)} rows loaded in {loaded:.1f} s, {drawn} in the document, {heap:.0f} MiB of heap"
    meter = Meter(browser, page)
    for pixels in SPEEDS:
        page.evaluate("document.querySelector('[role=grid]').scrollTop = 0")
        yield _scrolled(page, meter, pixels, seconds)
    page.evaluate("document.querySelector('[role=grid]').scrollTop = 0")
    yield _cpu_of(meter, "nothing changes", seconds, lambda: None)
    supply = iter(changing)
    with _paced(UPDATES_A_SECOND, lambda client: client.post(f"/runs/{next(supply)}/stop"), url) as wait:
        yield _cpu_of(meter, f"{UPDATES_A_SECOND} rows change a second", seconds, wait)
    with _paced(UPDATES_A_SECOND, lambda client: _submit(client, 1), url) as wait:
        yield _cpu_of(meter, f"{UPDATES_A_SECOND} runs come a second", seconds, wait)


def _scrolled(page: Page, meter: Meter, pixels: int, seconds: float) -> str:
    begin = meter.read()
    frames = sorted(page.evaluate(SCROLL, [pixels, seconds]))
    share = _share(begin, meter.read())
    late = sum(1 for frame in frames if frame > 25)
    worst = frames[int(len(frames) * 0.99)]
    return (
        f"scroll {pixels * 60} px/s: {1000 * len(frames) / sum(frames):.1f} frames/s, 99 % within {worst:.1f} ms,"
        f" {late} of {len(frames)} late; {share}"
    )


def _cpu_of(meter: Meter, what: str, seconds: float, begin: Callable[[], None]) -> str:
    begin()
    first = meter.read()
    # A load that no condition ends: this is the window of the measurement.
    time.sleep(seconds)
    return f"{what}: {_share(first, meter.read())}"


def _share(first: Cpu, last: Cpu) -> str:
    seconds = last.at - first.at
    parts = {"main thread": "page", "renderers": "renderers", "whole browser": "all"}
    shares = {name: (getattr(last, part) - getattr(first, part)) / seconds for name, part in parts.items()}
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items()) + " of a core"


def _submit(client: httpx.Client, number: int) -> list[str]:
    """Submit runs that wait until tomorrow."""
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    run: dict[str, Any] = {"type": "start_session", "parameters": {"prompt": "Say hello"}, "not_before": tomorrow}
    answer = client.post("/runs/batch", json={"runs": [run] * number})
    return [made["run_id"] for made in answer.json()["results"]]


def _waiting_runs(url: str, number: int) -> list[str]:
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        made = [_submit(client, BATCH) for _ in range(0, number, BATCH)]
    return list(itertools.chain.from_iterable(made))


@contextmanager
def _paced(rate: int, act: Callable[[httpx.Client], object], url: str) -> Iterator[Callable[[], None]]:
    """Act so often a second until the end of the block; yield a function that returns once the pace is kept."""
    ended, begun = Event(), Event()

    def work() -> None:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            due = time.monotonic()
            for number in itertools.count():
                due += 1 / rate
                if ended.wait(max(0.0, due - time.monotonic())):
                    return
                act(client)
                if number == 2 * rate:
                    begun.set()

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        yield lambda: None if begun.wait(30) else sys.exit("the load did not begin")
    finally:
        ended.set()
        thread.join(30)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
