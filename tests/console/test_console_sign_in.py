"""Sign in to the console by OIDC in Chromium, from an identity provider on another site."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from runtime.settings import Settings
from testkit.ports import own_port
from tests.support.browser import alerts_of, faults_of_access
from tests.support.callers import AUTH_ON
from tests.support.provider import ProviderOfTests, providing
from tests.support.web import WebInThread, served, until_ready


@pytest.fixture
def port() -> int:
    return own_port()


@pytest.fixture
def provider(port: int) -> Iterator[ProviderOfTests]:
    """Serve the provider at 127.0.0.1: to a browser that is another site than the console's localhost."""
    with providing(console_url=f"http://localhost:{port}/console") as provider:
        yield provider


@pytest.fixture
def web(settings: Settings, provider: ProviderOfTests, port: int) -> Iterator[WebInThread]:
    with served(settings.model_copy(update=AUTH_ON | provider.settings), port) as web:
        until_ready(web)
        yield web


def test_person_signs_in_at_the_provider_and_lands_signed_in(
    web: WebInThread, provider: ProviderOfTests, page: Page
) -> None:
    """Return to the page that was asked for, with its filters; a reload stays signed in, and a sign-out ends that."""
    runs = f"{provider.console_url}/runs?status=%5B%22failed%22%5D"
    page.goto(runs)
    link = page.get_by_role("link", name=f"Sign in with 127.0.0.1:{provider.port}")
    expect(link).to_be_visible(timeout=20_000)
    assert faults_of_access(page) == []
    link.click()
    expect(page.get_by_role("heading", name="Provider")).to_be_visible()
    page.get_by_role("link", name="Go on as ann").click()
    sign_out = page.get_by_role("button", name="ann · sign out")
    expect(sign_out).to_be_visible(timeout=20_000)
    expect(page.get_by_role("status")).to_have_text("live", timeout=20_000)
    assert page.url == runs
    assert page.evaluate("document.cookie") == ""
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
    assert set(cookies) == {"coordinator_console"}
    assert (cookies["coordinator_console"]["sameSite"], cookies["coordinator_console"]["httpOnly"]) == ("Strict", True)
    page.reload()
    expect(sign_out).to_be_visible(timeout=20_000)
    sign_out.click()
    expect(link).to_be_visible(timeout=20_000)
    assert web.client.get("/health").status_code == 200


def test_person_whom_the_provider_refuses_reads_its_words(
    web: WebInThread, provider: ProviderOfTests, page: Page
) -> None:
    """Show them as text on the page to sign in on, until the next attempt; then sign in all the same."""
    page.goto(f"{provider.console_url}/runs")
    link = page.get_by_role("link", name="Sign in with")
    link.click(timeout=20_000)
    page.get_by_role("link", name="No", exact=True).click()
    expect(alerts_of(page)).to_contain_text("access_denied: Not <b>you</b>", timeout=20_000)
    assert faults_of_access(page) == []
    provider.stop()
    link.click()
    expect(page).not_to_have_url(f"{provider.console_url}/runs")
    provider.start()
    page.goto(f"{provider.console_url}/runs")
    link.click(timeout=20_000)
    page.get_by_role("link", name="Go on as ann").click()
    expect(page.get_by_role("button", name="ann · sign out")).to_be_visible(timeout=20_000)
    assert web.client.get("/health").status_code == 200
