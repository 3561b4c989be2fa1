"""Failures of docs/operations.md as the pages of the console show them: in words, and over by themselves."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from testkit.cluster import Cluster
from testkit.prefork import ForkServer
from testkit.servers import OwnPostgres, OwnRedis, new_directory
from testkit.up_process import Up
from tests.support.browser import Replicas, faults_of_access, started_replicas, submit, watched_context

SOON = 30_000


@pytest.fixture
def fragile(
    built: None, scratch: Path, own_postgres: OwnPostgres, own_redis: OwnRedis, fork_server: ForkServer
) -> Iterator[Replicas]:
    """Serve on a Postgres and a Redis that the test stops."""
    cluster = Cluster(new_directory(scratch, "fragile"), own_postgres.url, own_redis.url, fork_server)
    try:
        yield started_replicas(cluster)
    finally:
        cluster.stop()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with watched_context(browser) as context:
        yield context.new_page()


def open_runs(page: Page, url: str) -> None:
    page.goto(f"{url}/console/runs")
    expect(page.get_by_role("status").first).to_have_text("live", timeout=SOON)


def is_shown(page: Page, url: str, prompt: str) -> None:
    """Check that a run submitted now appears and ends on the page without a reload."""
    run = submit(url, prompt)
    expect(page.locator(f'[data-run="{run}"] [data-status="completed"]')).to_be_visible(timeout=SOON)


def test_page_says_that_postgres_is_away_and_goes_on_after_it(
    fragile: Replicas, own_postgres: OwnPostgres, page: Page
) -> None:
    """Keep what was read; a page that is opened meanwhile says it too, and fills once Postgres is back."""
    url = fragile.urls[0]
    open_runs(page, url)
    is_shown(page, url, "before")
    page.evaluate("window.kept = 'this page'")
    other = page.context.new_page()
    own_postgres.stop()
    health = page.get_by_role("alert", name="Health")
    expect(health).to_contain_text("Postgres does not answer", timeout=SOON)
    expect(health).to_contain_text("Nothing can be read or changed")
    expect(page.locator("[data-run]")).to_have_count(1)
    assert faults_of_access(page) == []
    other.goto(f"{url}/console/sessions")
    expect(other.get_by_role("alert", name="Health")).to_contain_text("Postgres", timeout=SOON)
    own_postgres.start()
    expect(health).to_have_count(0, timeout=SOON)
    expect(other.locator("tr[data-session]")).to_have_count(1, timeout=SOON)
    is_shown(page, url, "after")
    assert page.evaluate("window.kept") == "this page"


def test_page_says_that_redis_is_away_and_stays_live(fragile: Replicas, own_redis: OwnRedis, page: Page) -> None:
    url = fragile.urls[0]
    open_runs(page, url)
    own_redis.stop()
    health = page.get_by_role("alert", name="Health")
    expect(health).to_contain_text("Redis does not answer", timeout=SOON)
    expect(health).to_contain_text("Nothing is lost")
    is_shown(page, url, "without Redis")
    own_redis.start()
    expect(health).to_have_count(0, timeout=SOON)


def test_page_says_that_no_worker_works(fragile: Replicas, page: Page) -> None:
    url = fragile.urls[0]
    open_runs(page, url)
    fragile.worker.freeze()
    try:
        health = page.get_by_role("alert", name="Health")
        expect(health).to_contain_text("no worker did", timeout=SOON)
        expect(health).to_contain_text("Claims go on")
        is_shown(page, url, "without workers")
    finally:
        fragile.worker.thaw()
    expect(health).to_have_count(0, timeout=SOON)


def test_page_outlives_the_web_process_that_served_it(up: Up, page: Page) -> None:
    """Kill it under the open page; its successor at the same address goes on where the stream broke."""
    first, second = up.urls
    open_runs(page, first)
    page.evaluate("window.kept = 'this page'")
    up.running("web-1").kill()
    is_shown(page, second, "while it was dead")
    expect(page.get_by_role("status").first).to_have_text("live", timeout=SOON)
    expect(page.get_by_role("alert", name="Health")).to_have_count(0, timeout=SOON)
    assert page.evaluate("window.kept") == "this page"


def test_page_says_that_nothing_answers(fragile: Replicas, page: Page) -> None:
    """End all of it; the page keeps what it has, and an address that is opened then fails as any does."""
    url = fragile.urls[0]
    open_runs(page, url)
    is_shown(page, url, "last words")
    for web in fragile.webs:
        web.stop()
    with pytest.raises(httpx.TransportError):
        httpx.get(url)
    expect(page.get_by_role("alert", name="Health")).to_contain_text("The coordinator does not answer", timeout=SOON)
    expect(page.locator("[data-run]")).to_have_count(1)
