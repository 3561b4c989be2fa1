"""Open pages of the console whose events are recorded, traffic under them, and the feed's own record of it."""

from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Self

import httpx
from playwright.sync_api import BrowserContext, Page, expect

from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.web import PROMPT

# Record what the page applies, and let a test hide the page, as another tab in front of it does.
_RECORDED = """
window.applied = [];
addEventListener("coordinator:events", (event) => window.applied.push(...event.detail.map(({ id }) => id)));
let hidden = false;
Object.defineProperty(document, "visibilityState", { get: () => (hidden ? "hidden" : "visible") });
window.hide = (is) => {
  hidden = is;
  document.dispatchEvent(new Event("visibilitychange"));
};
"""
# Ways in which the pages of a browser share a stream, by what the browser lacks.
LACKS = {
    "shared worker": "",
    "elected page": "delete window.SharedWorker;",
    "own stream": "delete window.SharedWorker; delete window.BroadcastChannel;",
}
KINDS = ("session_created", "session_updated", "session_deleted", "run_updated")


def recorded_page(context: BrowserContext, url: str, way: str = "shared worker") -> Page:
    page = context.new_page()
    page.add_init_script(LACKS[way] + _RECORDED)
    page.goto(f"{url}/console/runs")
    expect(page.get_by_role("status")).to_have_text("live", timeout=20_000)
    return page


def applied(page: Page) -> list[int]:
    """Return the positions of the events that the page has applied, in its order."""
    return [int(str(each).rpartition(".")[2]) for each in page.evaluate("window.applied")]


def recorded(db: DbVerbs, after: int) -> list[int]:
    """Return the positions behind one that the feed has, of the kinds that the console follows."""
    rows = db.rows(
        "SELECT feed_pos FROM events WHERE feed_pos > :after AND kind = ANY(:kinds) ORDER BY feed_pos",
        after=after,
        kinds=list(KINDS),
    )
    return [int(row.feed_pos) for row in rows]


def last_position(db: DbVerbs) -> int:
    return int(db.one("SELECT last_pos FROM feed_head"))


def check_ledger(page: Page, db: DbVerbs, after: int) -> None:
    """Require that the page applies each event behind a position once, in the feed's order."""
    unnumbered = "SELECT count(*) FROM events WHERE feed_pos IS NULL"
    eventually(lambda: db.one(unnumbered) == 0, 20, every=0.05, what="the numbering of all events")
    expected = recorded(db, after)
    assert expected
    eventually(lambda: applied(page)[-1:] == expected[-1:], 20, every=0.05, what=f"event {expected[-1]} on the page")
    assert applied(page) == expected, "the page differs from the feed"


def streams(*urls: str) -> int:
    """Count the streams that web processes serve now."""
    lines = [line for url in urls for line in httpx.get(f"{url}/metrics").text.splitlines()]
    return sum(int(float(line.split()[1])) for line in lines if line.startswith("coordinator_streams "))


@dataclass
class Traffic:
    """Runs that are submitted and stopped at a web process until the end of the block."""

    url: str
    most: int = 100_000
    _ended: Event = field(default_factory=Event)
    _thread: Thread = field(init=False)
    made: int = 0

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._work, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def _work(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30, trust_env=False) as client:
            while not self._ended.wait(0.02) and self.made < self.most:
                run = client.post("/runs", json={"type": "start_session", "parameters": PROMPT}).json()["run_id"]
                client.post(f"/runs/{run}/stop")
                self.made += 1

    def wait_for(self, number: int) -> None:
        """Wait until so many more runs were made."""
        wanted = self.made + number
        eventually(lambda: self.made >= wanted, 60, what=f"{wanted} runs")
