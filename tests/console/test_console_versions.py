"""Replace the console under open pages and running requests: by a build in place, and by another release."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from testkit.cluster import Cluster
from testkit.ports import own_port
from testkit.waiting import eventually
from tests.support.browser import alerts_of, submit, watched_context
from tests.support.console_copy import ConsoleCopy, assets_of, start_web

NAME = "        Coordinator\n"
LONG = 30_000


@pytest.fixture
def copy(built: None, tmp_path: Path) -> ConsoleCopy:
    """Return another version of the console, not built yet: it bears another name."""
    copy = ConsoleCopy.make(tmp_path / "copy")
    copy.change("shell/shell.tsx", NAME, "        Coordinator renewed\n")
    return copy


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with watched_context(browser) as context:
        page = context.new_page()
        page.set_default_timeout(LONG)
        yield page


@contextmanager
def asked_for(url: str) -> Iterator[Counter[int | str]]:
    """Load the page and all that it names, and what it named at first, again and again; yield the outcomes."""
    outcomes: Counter[int | str] = Counter()
    over = threading.Event()
    first = assets_of(url)

    def ask() -> None:
        with httpx.Client(timeout=30) as client:
            while not over.is_set():
                for address in [f"{url}/console/runs", *assets_of(url, client), *first]:
                    outcomes[client.get(address).status_code] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield outcomes
    finally:
        over.set()
        thread.join()


def test_no_request_fails_while_the_console_is_built_anew(cluster: Cluster, copy: ConsoleCopy) -> None:
    """Answer the page, what it names and what earlier pages name, before, while and after the build takes its place."""
    web = copy.start_web(cluster, own_port())
    former = assets_of(web.url)
    with asked_for(web.url) as outcomes:
        copy.build()
        assert assets_of(web.url) != former
        asked = outcomes.total()
        eventually(lambda: outcomes.total() > asked + 20, what="requests after the build")
    assert set(outcomes) == {200}, outcomes
    assert "Traceback" not in web.log()


def test_open_page_of_earlier_release_works_on_and_offers_the_new_one(
    cluster: Cluster, copy: ConsoleCopy, page: Page
) -> None:
    """Replace the replica by one that has nothing of the earlier build, as another image would."""
    port = own_port()
    web = start_web(cluster, port)
    page.goto(f"{web.url}/console/runs?status=%5B%22pending%22%5D")
    expect(page.get_by_role("status")).to_have_text("live", timeout=LONG)
    offer = page.get_by_role("button", name="new version: load it")
    expect(offer).to_have_count(0)
    former = assets_of(web.url)
    copy.build()
    copy.forget_earlier_builds()
    web.stop()
    web = copy.start_web(cluster, port)
    gone = [address for address in former if httpx.get(address, timeout=20).status_code == 404]
    assert len(gone) >= 1
    expect(offer).to_be_visible(timeout=LONG)
    expect(page.get_by_role("status")).to_have_text("live", timeout=LONG)
    run = submit(web.url, "wait", additional_demands={"tags": ["gpu"]})
    expect(page.locator(f'[data-run="{run}"]')).to_be_visible(timeout=LONG)
    expect(alerts_of(page)).to_have_count(0)
    offer.click()
    expect(page.get_by_role("link", name="Coordinator renewed")).to_be_visible(timeout=LONG)
    expect(page.locator(f'[data-run="{run}"]')).to_be_visible(timeout=LONG)
    expect(offer).to_have_count(0)


@pytest.mark.parametrize("missing", ["index-*.js*", "worker-*.js*", "index-*.css*"])
def test_page_that_misses_a_file_says_so_and_loads_again(
    cluster: Cluster, copy: ConsoleCopy, page: Page, missing: str
) -> None:
    """Ask a replica of one release for a file of the other, as a balancer does while replicas are replaced."""
    web = copy.start_web(cluster, own_port())
    elsewhere = copy.root / "elsewhere"
    elsewhere.mkdir()
    for path in copy.assets.glob(missing):
        path.rename(elsewhere / path.name)
    page.goto(f"{web.url}/console/runs")
    words = alerts_of(page)
    expect(words).to_contain_text("a new version is being installed", timeout=LONG)
    for path in elsewhere.iterdir():
        path.rename(copy.assets / path.name)
    expect(page.get_by_text("No run yet")).to_be_visible(timeout=LONG)
    expect(page.get_by_role("status")).to_have_text("live", timeout=LONG)
    expect(words).to_have_count(0)
