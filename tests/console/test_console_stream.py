"""Share one stream among the pages of a browser and resume it exactly; compare pages with the feed's own record."""

from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Browser, Route

from testkit.cluster import Cluster
from testkit.waiting import eventually
from tests.support.browser import watched_context
from tests.support.db_verbs import DbVerbs
from tests.support.feed_ledger import LACKS, Traffic, check_ledger, last_position, recorded_page, streams

# Streams end after a second or so, and pages resume them.
SHORT: dict[str, Any] = {"stream_lifetime_seconds": 1, "feed_poll_seconds": 0.05}
LONGEST_HIDDEN_SECONDS = 90


def page_applies_each_event_once(browser: Browser, url: str, db: DbVerbs, way: str) -> None:
    """Follow traffic over many ends of the stream."""
    with watched_context(browser) as context:
        page = recorded_page(context, url, way)
        begin = last_position(db)
        with Traffic(url) as traffic:
            traffic.wait_for(50)
        check_ledger(page, db, begin)


@pytest.mark.parametrize("way", LACKS)
def test_page_applies_each_event_once_over_ends_of_its_stream(
    cluster: Cluster, db: DbVerbs, browser: Browser, way: str
) -> None:
    web = cluster.start_web(**SHORT)
    cluster.start_worker()
    page_applies_each_event_once(browser, web.url, db, way)


def _connect_after(traffic: Traffic, number: int, route: Route) -> None:
    eventually(lambda: traffic.made >= number, 60, what=f"{number} runs")
    route.continue_()


def other_page_takes_the_stream(browser: Browser, url: str, db: DbVerbs, way: str, number: int = 1) -> None:
    """Close the page that came first, which owns the stream where pages elect; events fall between it and the next."""
    with watched_context(browser) as context:
        first, second = (recorded_page(context, url, way) for _ in range(2))
        eventually(lambda: streams(url) == number, 20, every=0.1, what=f"{number} streams")
        begin = last_position(db)
        with Traffic(url) as traffic:
            traffic.wait_for(30)
            second.route("**/sse/sessions*", partial(_connect_after, traffic, traffic.made + 20))
            first.close()
            traffic.wait_for(60)
        check_ledger(second, db, begin)
        # Ends of streams by their lifetime leave moments without one.
        eventually(lambda: streams(url) == 1, 20, every=0.1, what="one stream")
        second.close()
        eventually(lambda: streams(url) == 0, 20, every=0.1, what="the stream's end")


@pytest.mark.parametrize(("way", "number"), [("shared worker", 1), ("elected page", 1), ("own stream", 2)])
def test_pages_of_a_browser_share_a_stream_that_outlives_each(
    cluster: Cluster, db: DbVerbs, browser: Browser, way: str, number: int
) -> None:
    web = cluster.start_web()
    cluster.start_worker()
    other_page_takes_the_stream(browser, web.url, db, way, number)


def test_hidden_owner_gives_way_to_visible_page(cluster: Cluster, db: DbVerbs, browser: Browser) -> None:
    """Browsers slow hidden pages down: the visible one takes the stream, and both lose nothing."""
    web = cluster.start_web()
    cluster.start_worker()
    with watched_context(browser) as context:
        first = recorded_page(context, web.url, "elected page")
        second = recorded_page(context, web.url, "elected page")
        begin = last_position(db)
        with Traffic(web.url) as traffic:
            traffic.wait_for(20)
            first.evaluate("hide(true)")
            second.evaluate("hide(false)")
            traffic.wait_for(20)
            second.evaluate("hide(true)")
            first.evaluate("hide(false)")
            traffic.wait_for(20)
        for page in (first, second):
            check_ledger(page, db, begin)
        eventually(lambda: streams(web.url) == 1, 20, every=0.1, what="one stream")


def test_stream_ends_while_all_pages_are_hidden_and_is_resumed_exactly(
    cluster: Cluster, db: DbVerbs, browser: Browser
) -> None:
    """Hide both pages until the stream is closed, a minute later; changes from then on arrive when one is shown."""
    web = cluster.start_web()
    cluster.start_worker()
    with watched_context(browser) as context:
        pages = [recorded_page(context, web.url) for _ in range(2)]
        begin = last_position(db)
        with Traffic(web.url, most=20) as traffic:
            traffic.wait_for(10)
        pages[0].evaluate("hide(true)")
        with Traffic(web.url, most=10) as traffic:
            traffic.wait_for(10)
        # The other page is visible: it has got everything, and so has the hidden one.
        check_ledger(pages[0], db, begin)
        pages[1].evaluate("hide(true)")
        eventually(lambda: streams(web.url) == 0, LONGEST_HIDDEN_SECONDS, every=0.5, what="the stream's end")
        known = pages[0].evaluate("applied.length")
        with Traffic(web.url, most=40) as traffic:
            traffic.wait_for(40)
        assert pages[0].evaluate("applied.length") == known
        pages[0].evaluate("hide(false)")
        for page in pages:
            check_ledger(page, db, begin)
        assert streams(web.url) == 1
