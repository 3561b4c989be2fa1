"""Fixtures of the tests that drive the console in Chromium; without a browser they fail and say so."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from devserver import console_build
from testkit.ports import own_ports
from testkit.servers import new_directory
from testkit.up_process import Up
from tests.support.browser import open_browser, watched_context


@pytest.fixture(scope="session")
def built() -> None:
    """Build the console from its sources, once."""
    console_build.install_packages(console_build.find_node())
    console_build.build()


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
