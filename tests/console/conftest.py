"""Fixtures of the tests that drive the console in Chromium; without a browser they fail and say so."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from devserver import console_build
from testkit.cluster import Cluster
from testkit.ports import own_ports
from testkit.prefork import ForkServer
from testkit.servers import OwnRedis, PostgresOfTests, new_directory
from testkit.up_process import Up
from tests.support.browser import Replicas, open_browser, started_replicas, watched_context
from tests.support.databases import Databases


@pytest.fixture(scope="session")
def built() -> None:
    """Build the console from its sources, once."""
    console_build.install_packages(console_build.find_node())
    console_build.build()


@pytest.fixture(scope="module")
def replicas(
    built: None, scratch: Path, postgres: PostgresOfTests, databases: Databases, fork_server: ForkServer
) -> Iterator[Replicas]:
    """Start what `up` starts, two web processes, a worker and its runner, as forks: for a tenth of the CPU."""
    database_url, redis = databases.take(), OwnRedis(new_directory(scratch, "redis"))
    cluster = Cluster(new_directory(scratch, "replicas"), postgres.pooled(database_url), redis.url, fork_server)
    try:
        yield started_replicas(cluster)
    finally:
        cluster.stop()
        redis.kill()
    databases.give_back(database_url)


@pytest.fixture(scope="module")
def up(built: None, scratch: Path) -> Iterator[Up]:
    up = Up(new_directory(scratch, "console"), own_ports(2), "--web", "2", "--workers", "1")
    try:
        assert up.urls
        yield up
    finally:
        up.end()


@pytest.fixture(scope="module")
def browser(built: None) -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """Open a page that fails the test at an error of a script or a breach of the policy."""
    with watched_context(browser) as context:
        yield context.new_page()
