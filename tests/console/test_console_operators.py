"""Pages of operators: keys, the audit log, draining runners, time zones, and what each role sees of them."""

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from models.core.callers import Role
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.browser import Replicas, faults_of_access, submit, watched_context
from tests.support.callers import bearer, make_key, web_with_auth
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebInThread

SOON = 20_000
PHONE = (360, 740)


@pytest.fixture
def secured(settings: Settings, db: DbVerbs) -> Iterator[WebInThread]:
    with web_with_auth(settings) as web:
        yield web


def sign_in(page: Page, url: str, key: str, path: str) -> None:
    page.goto(f"{url}/console/{path}")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("button", name=re.compile("sign out"))).to_be_visible(timeout=SOON)


def test_admin_creates_key_that_is_shown_once_and_revokes_it(
    secured: WebInThread, db: DbVerbs, browser: Browser
) -> None:
    """Copy the secret without a clipboard; the key works, and is refused once it is revoked."""
    url = secured.client.url
    with watched_context(browser) as context:
        context.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        page = context.new_page()
        sign_in(page, url, make_key(db, Role.ADMIN), "keys")
        expect(page.locator("tr[data-key]")).to_have_count(1)
        expect(page.locator("tr[data-key]")).to_contain_text("yours now")
        create = page.get_by_role("button", name="Create a key")
        create.click()
        assert faults_of_access(page) == []
        page.get_by_label("Role").select_option("runner")
        page.get_by_role("button", name="Create it").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        page.get_by_label("Owner").fill("build-7")
        page.get_by_label("Name").fill("<b>rack 7</b>")
        page.get_by_label("Ends after").first.fill("2")
        page.get_by_role("button", name="Create it").click()
        secret = page.locator("[data-secret]")
        expect(secret).to_have_text(re.compile("^crd_[0-9a-f]{12}_[0-9a-f]{64}$"), timeout=SOON)
        key = secret.inner_text()
        page.get_by_role("button", name="Copy the key").click()
        expect(page.get_by_role("dialog").get_by_text("Copied")).to_be_visible()
        page.keyboard.press("Escape")
        expect(secret).to_be_visible()
        page.get_by_role("button", name="I have kept it").click()
        expect(create).to_be_focused()
        row = page.locator(f'[data-key="{key.rpartition("_")[0]}"]')
        expect(row).to_contain_text("build-7")
        expect(row).to_contain_text("<b>rack 7</b>")
        assert key not in page.content()
        page.locator("#search").press("Control+V")
        expect(page.locator("#search")).to_have_value(key)
        me = httpx.get(f"{url}/me", headers=bearer(key)).json()
        assert (me["role"], me["owner"]) == ("runner", "build-7")
        assert me["expires_at"]
        row.get_by_role("button", name=re.compile("Revoke")).click()
        page.get_by_role("button", name="Revoke it for ever").click()
        expect(row).to_have_count(0, timeout=SOON)
        page.get_by_role("button", name="Revoked and expired (1)").click()
        expect(row).to_contain_text("revoked")
        assert faults_of_access(page) == []
        eventually(lambda: httpx.get(f"{url}/me", headers=bearer(key)).status_code in {401, 403}, what="its end")


def test_audit_log_is_filtered_by_its_address_and_grows_by_itself(
    secured: WebInThread, db: DbVerbs, browser: Browser
) -> None:
    url = secured.client.url
    admin = make_key(db, Role.ADMIN)
    first = make_key(db, Role.USER, "ann").rpartition("_")[0]
    with watched_context(browser) as context:
        page = context.new_page()
        sign_in(page, url, admin, "audit")
        rows = page.locator("tr[data-act]")
        expect(rows).to_have_count(2)
        made = httpx.post(f"{url}/keys", json={"role": "user", "owner": "bob"}, headers=bearer(admin)).json()
        expect(rows).to_have_count(3, timeout=SOON)
        page.get_by_label("On", exact=True).fill(first)
        page.get_by_role("button", name="Filter", exact=True).click()
        expect(rows).to_have_count(1)
        assert f"target={first}" in page.url
        page.goto(f"{url}/console/audit?act=key_created&target={made['key_id']}")
        expect(page.get_by_label("Act", exact=True)).to_have_value("key created", timeout=SOON)
        expect(rows).to_have_count(1)
        httpx.delete(f"{url}/keys/{made['key_id']}", headers=bearer(admin)).raise_for_status()
        page.get_by_role("button", name="Clear the filters").click()
        expect(rows).to_have_count(4, timeout=SOON)
        page.get_by_label(re.compile("^From")).fill("2099-01-01T00:00")
        page.get_by_role("button", name="Filter", exact=True).click()
        expect(page.get_by_text("No act matches these filters")).to_be_visible()
        assert "since=2099-01-01" in page.url or "since=2098-12-31" in page.url
        page.get_by_role("link", name="Show all acts").click()
        rows.first.get_by_role("link", name="key revoked").click()
        expect(rows).to_have_count(1)
        assert faults_of_access(page) == []


def test_pages_of_administrators_explain_themselves_to_others(
    secured: WebInThread, db: DbVerbs, browser: Browser
) -> None:
    """Hide the ways there, and say at the address itself who sees it; a page with the audit log open stays live."""
    url = secured.client.url
    with watched_context(browser) as context:
        page = context.new_page()
        sign_in(page, url, make_key(db, Role.USER, "ann"), "runs")
        for name in ("Runners", "Audit", "Keys"):
            expect(page.get_by_role("navigation").get_by_role("link", name=name)).to_have_count(0)
        for path in ("runners", "audit", "keys", "runners/lnch_unknown"):
            page.goto(f"{url}/console/{path}")
            expect(page.get_by_text(re.compile("shown to administrators"))).to_be_visible(timeout=SOON)
            expect(page.get_by_role("status").first).to_have_text("live", timeout=SOON)
            assert faults_of_access(page) == [], path


def test_runner_is_drained_with_a_reason_and_undrained(replicas: Replicas, page: Page) -> None:
    """Send it nothing meanwhile, and say so on its page and in the list."""
    url = replicas.urls[0]
    page.goto(f"{url}/console/runners")
    row = page.locator("tr[data-runner]")
    expect(row).to_have_count(1, timeout=SOON)
    runner = row.get_attribute("data-runner")
    row.get_by_role("link").click()
    page.get_by_role("button", name="Drain…").click()
    page.get_by_label(re.compile("^Reason")).fill("<i>new disk</i>")
    assert faults_of_access(page) == []
    page.get_by_role("button", name="Drain it").click()
    drained = page.locator("[data-draining]")
    expect(drained).to_contain_text("<i>new disk</i>", timeout=SOON)
    expect(page.get_by_role("button", name="Undrain")).to_be_focused()
    run = submit(url, "wait for the disk")
    expect(page.get_by_role("region", name="Why it gets no run")).to_contain_text("drain", timeout=SOON)
    page.goto(f"{url}/console/runs/{run}")
    expect(page.get_by_role("region", name="Why")).to_contain_text("drain", timeout=SOON)
    page.goto(f"{url}/console/runners/{runner}")
    page.get_by_role("button", name="Undrain").click()
    page.get_by_role("button", name="Undrain it").click()
    expect(drained).to_have_count(0, timeout=SOON)
    assert httpx.get(f"{url}/runs/{run}?wait=20", timeout=30).json()["status"] == "completed"


def test_times_are_shown_in_any_zone_of_the_browser(replicas: Replicas, browser: Browser) -> None:
    """Keep the choice in the browser; search by name, reach all by the keyboard, fit on a phone."""
    url = replicas.urls[0]
    run = submit(url, "when")
    created = httpx.get(f"{url}/runs/{run}?wait=20", timeout=30).json()["created_at"]
    with watched_context(browser, PHONE) as context:
        page = context.new_page()
        page.goto(f"{url}/console/runs/{run}")
        choose = page.get_by_role("button", name=re.compile("^Times are"))
        choose.click()
        page.get_by_label("Search time zones").fill("lord how")
        assert faults_of_access(page) == []
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(choose).to_have_text("Lord Howe")
        expect(choose).to_be_focused()
        time = page.locator(f'time[datetime="{created}"]').first
        shown = page.evaluate(
            "at => new Intl.DateTimeFormat('sv', { timeZone: 'Australia/Lord_Howe', dateStyle: 'short',"
            " timeStyle: 'medium' }).format(new Date(at))",
            created,
        )
        expect(time).to_have_attribute("title", re.compile(f"^{shown}.* [+](10:30|11:00) Australia/Lord_Howe$"))
        page.reload()
        expect(choose).to_have_text("Lord Howe", timeout=SOON)
        page.evaluate("localStorage.setItem('coordinator.zone', 'Mars/Olympus')")
        page.reload()
        expect(page.get_by_role("button", name=re.compile("^Times are local"))).to_be_visible(timeout=SOON)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
