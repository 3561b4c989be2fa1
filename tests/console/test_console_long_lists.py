"""Scroll through 20,000 runs in Chromium while runs change; `scripts/bench console` scrolls through 100,000."""

from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from runtime.settings import Settings
from testkit.many_runs import fill_ended_runs, id_of
from testkit.waiting import eventually
from tests.support.browser import watched_context
from tests.support.web import served, until_ready

ROWS = 20_000
# Rows in view, and some above and below.
MOST_IN_DOCUMENT = 80
SHOWN = """
() => [...document.querySelectorAll("[data-run]")].map((row) => [Number(row.ariaRowIndex) - 2, row.dataset.run])
"""
SCROLL = """
(top) => new Promise((resolve) => {
  document.querySelector("[role=grid]").scrollTop = top;
  requestAnimationFrame(() => requestAnimationFrame(resolve));
})
"""


def rows_of(page: Page) -> int:
    return int(page.get_by_role("grid").get_attribute("aria-rowcount") or 0) - 1


def shown_after(page: Page, top: float) -> list[list[Any]]:
    """Scroll there and return the places and ids of the rows that are in the document."""
    page.evaluate(SCROLL, top)
    shown: list[list[Any]] = page.evaluate(SHOWN)
    assert 0 < len(shown) <= MOST_IN_DOCUMENT
    return shown


def load_all(page: Page) -> None:
    """Go to the end of what is loaded until all is."""

    def is_at_end() -> bool:
        page.evaluate(SCROLL, 1e9)
        return rows_of(page) >= ROWS

    eventually(is_at_end, 600, what="all rows")
    assert rows_of(page) == ROWS


@pytest.mark.timeout(900)
def test_list_of_20000_runs_loses_and_moves_no_row(settings: Settings, browser: Browser) -> None:
    """Load all pages; each row looked at is where the database has it, before and after changes and new runs."""
    fill_ended_runs(settings.database_url, ROWS)
    with served(settings) as web, watched_context(browser) as context:
        until_ready(web)
        client = web.client
        page = context.new_page()
        page.goto(f"{client.url}/console/runs")
        expect(page.get_by_role("status")).to_have_text("live", timeout=20_000)
        expect(page.get_by_role("grid")).to_be_visible(timeout=30_000)
        load_all(page)
        height = page.evaluate("document.querySelector('[role=grid]').scrollHeight")
        for step in range(101):
            for place, run in shown_after(page, height * step / 100):
                assert run == id_of(place)
        assert shown_after(page, height)[-1] == [ROWS - 1, id_of(ROWS - 1)]

        middle = shown_after(page, height / 2)
        run = str(middle[len(middle) // 2][1])
        page.get_by_label(f"Select {run}", exact=True).click()
        # Another run of a shown session changes its row; new runs wait above.
        runner = client.register()
        made = client.started(runner)
        expect(page.get_by_role("button", name="1 new")).to_be_visible(timeout=20_000)
        assert page.evaluate(SHOWN) == middle
        page.get_by_role("button", name="1 new").click()
        eventually(lambda: page.evaluate(SHOWN)[0] == [0, made["run_id"]], 20, what="the new run at the top")
        assert rows_of(page) == ROWS + 1
        expect(page.locator(f'[data-run="{made["run_id"]}"] [data-status="running"]')).to_be_visible(timeout=20_000)
        assert client.report(made, runner, "completed").status_code == 200
        expect(page.locator(f'[data-run="{made["run_id"]}"] [data-status="completed"]')).to_be_visible(timeout=20_000)
        for place, shown in shown_after(page, height / 2 + 38):
            assert shown == id_of(place - 1)
        expect(page.locator(f'[data-run="{run}"]')).to_have_attribute("aria-selected", "true")
        expect(page.get_by_text("1 selected", exact=True)).to_be_visible()


def test_bounded_search_says_how_far_it_came_and_goes_on_when_asked(settings: Settings, browser: Browser) -> None:
    """Look for what no index serves among more runs than one search looks at."""
    rows = 201_000
    fill_ended_runs(settings.database_url, rows)
    with served(settings) as web, watched_context(browser) as context:
        until_ready(web)
        page = context.new_page()
        page.goto(f"{web.client.url}/console/runs?error=no+such+error")
        expect(page.get_by_text("No run matches so far")).to_be_visible(timeout=20_000)
        further = page.get_by_role("button", name="Search further")

        def is_done() -> bool:
            if further.count():
                further.click()
            return page.get_by_text("No run matches these filters").count() > 0

        eventually(is_done, 60, every=0.05, what="the end of the search")
