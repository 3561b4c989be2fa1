"""The pages of webhooks in Chromium: the list, messages with their answers, a test, and a replay."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from models.core.callers import Role
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.console.test_console_operators import sign_in
from tests.support.browser import faults_of_access, watched_context
from tests.support.callers import make_key, web_with_auth
from tests.support.db_verbs import DbVerbs
from tests.support.reports import finished
from tests.support.web import WebInThread
from tests.support.webhooks import matched, put, receiving, recorded, sending, taken

SOON = 20_000


@pytest.fixture
def secured(settings: Settings, db: DbVerbs) -> Iterator[WebInThread]:
    with web_with_auth(settings) as web:
        yield web


def test_admin_sees_messages_and_sends_them_again(
    built: None, secured: WebInThread, settings: Settings, db: DbVerbs, browser: Browser
) -> None:
    """Show a failed attempt with its next one, send it now, test the webhook; say it when it is disabled."""
    with receiving() as receiver, watched_context(browser) as context:
        put(db, "ci", receiver.url, labels={"team": "<b>sky</b>"})
        finished(db, labels={"team": "<b>sky</b>"})
        matched(db)
        (first,) = taken(db)
        recorded(db, first, 503)
        page = context.new_page()
        sign_in(page, secured.client.url, make_key(db, Role.ADMIN), "webhooks")
        row = page.locator("tr[data-webhook=ci]")
        expect(row).to_contain_text("in use", timeout=SOON)
        expect(row).to_contain_text("team=<b>sky</b>")
        assert faults_of_access(page) == []
        row.get_by_role("link", name="ci").click()
        message = page.locator(f"tr[data-delivery={first.event_id}]")
        expect(message).to_contain_text("503", timeout=SOON)
        expect(message).to_have_attribute("data-state", "pending")
        page.get_by_role("button", name="Send a test").click()
        expect(page.locator("tr[data-delivery]")).to_have_count(2, timeout=SOON)
        assert faults_of_access(page) == []
        page.get_by_role("button", name=f"Send now {first.event_id}").click()
        with sending(settings):
            expect(page.locator("tr[data-state=delivered]")).to_have_count(2, timeout=SOON)
            expect(message).to_contain_text("204")
            page.get_by_role("button", name=f"Replay {first.event_id}").click()
            eventually(lambda: len(receiver.messages) == 3, what="the replay")
        page.get_by_role("button", name="failed", exact=True).click()
        expect(page.get_by_text("No message is failed")).to_be_visible(timeout=SOON)
        db.rows("UPDATE webhooks SET disabled = true, disabled_reason = 'It answered 410 Gone'")
        page.reload()
        expect(page.get_by_text(re.compile("disabled: It answered 410 Gone"))).to_be_visible(timeout=SOON)
        expect(page.get_by_role("button", name="Send a test")).to_be_disabled()
