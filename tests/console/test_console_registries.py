"""Page of agents, capabilities, scripts and MCP servers."""

import re

from playwright.sync_api import Browser, expect

from models.core.callers import Role
from runtime.settings import Settings
from tests.support.browser import faults_of_access, watched_context
from tests.support.callers import client_with, make_key, web_with_auth
from tests.support.db_verbs import DbVerbs

SOON = 20_000


def test_agents_are_shown_resolved_live_and_deactivated_by_admins(
    settings: Settings, db: DbVerbs, browser: Browser
) -> None:
    """Follow the acts of others; a user sees the same without the button."""
    with web_with_auth(settings) as web:
        url, key = web.client.url, make_key(db, Role.ADMIN)
        with client_with(url, key) as admin, watched_context(browser) as context:
            admin.post("/capabilities", {"name": "search", "description": "Searches", "text": "Search the web."})
            admin.post(
                "/agents",
                {"name": "reporter", "description": "<b>Writes</b>", "tags": ["weekly"], "capabilities": ["search"]},
            )
            admin.post("/mcp-servers", {"id": "srv", "name": "Server", "url": "http://x"})
            page = context.new_page()
            page.goto(f"{url}/console/agents")
            page.get_by_label("API key").fill(key)
            page.get_by_role("button", name="Sign in", exact=True).click()
            row = page.locator('tr[data-entry="reporter"]')
            expect(row).to_contain_text("<b>Writes</b>", timeout=SOON)
            expect(row).to_contain_text("weekly")
            assert faults_of_access(page) == []
            admin.post("/agents", {"name": "later", "description": ""})
            expect(page.locator('tr[data-entry="later"]')).to_be_visible(timeout=SOON)
            row.get_by_role("link", name="reporter").click()
            expect(page.get_by_role("heading", name="reporter")).to_be_visible()
            expect(page.get_by_text("Search the web.")).to_be_visible(timeout=SOON)
            page.get_by_role("button", name="Deactivate…").click()
            page.get_by_role("button", name="Deactivate it").click()
            expect(page.get_by_role("button", name="Activate…", exact=True)).to_be_visible(timeout=SOON)
            assert admin.get("/agents/reporter").json()["status"] == "inactive"
            assert faults_of_access(page) == []
            page.get_by_role("link", name="All of this kind").click()
            page.get_by_role("button", name="MCP servers").click()
            expect(page.locator('tr[data-entry="srv"]')).to_contain_text("http://x", timeout=SOON)
            assert "registry=mcp-servers" in page.url
            page.get_by_role("button", name="Scripts").click()
            expect(page.get_by_text("Nothing is registered")).to_be_visible(timeout=SOON)
            page.get_by_role("button", name=re.compile("sign out")).click()
            page.get_by_label("API key").fill(make_key(db, Role.USER, "ann"))
            page.get_by_role("button", name="Sign in", exact=True).click()
            expect(page.get_by_role("button", name=re.compile("sign out"))).to_be_visible(timeout=SOON)
            page.goto(f"{url}/console/agents?name=reporter")
            expect(page.get_by_text("Search the web.")).to_be_visible(timeout=SOON)
            expect(page.get_by_role("button", name="Activate…", exact=True)).to_have_count(0)
