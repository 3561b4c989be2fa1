"""Choose runs and save views, in Chromium against two web processes, a worker and a runner."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from testkit.waiting import eventually
from tests.support.browser import Replicas, faults_of_access, submit, watched_context

# No runner takes these runs: they wait until they are stopped.
WAITING = {"additional_demands": {"tags": ["none-has-it"]}}


@pytest.fixture
def own_page(browser: Browser) -> Iterator[Page]:
    """Open a page of a browser that keeps nothing of other tests."""
    with watched_context(browser) as context:
        yield context.new_page()


def waiting_runs(url: str, team: str, number: int) -> list[str]:
    """Submit runs that wait; return them as the list shows them, newest first."""
    return [submit(url, f"wait {n}", labels={"team": team}, **WAITING) for n in range(number)][::-1]


def open_list(page: Page, url: str, team: str, rows: int, more: str = "") -> None:
    page.goto(f"{url}/console/runs?label=%5B%22team%3D{team}%22%5D{more}")
    expect(page.locator("[data-run]")).to_have_count(rows, timeout=20_000)


def chosen(page: Page) -> list[str]:
    rows = page.locator('[data-run][aria-selected="true"]')
    return [str(row.get_attribute("data-run")) for row in rows.all()]


def box_of(page: Page, run: str) -> Locator:
    return page.get_by_label(f"Select {run}", exact=True)


def statuses(url: str, runs: list[str]) -> list[str]:
    return [str(httpx.get(f"{url}/runs/{run}").json()["status"]) for run in runs]


def test_rows_are_chosen_by_click_range_and_keys_and_stay_chosen(replicas: Replicas, own_page: Page) -> None:
    """Choose with the mouse and the keyboard; changes and new rows leave the choice as it is."""
    url, page = replicas.urls[0], own_page
    runs = waiting_runs(url, "keys", 6)
    open_list(page, url, "keys", 6)
    box_of(page, runs[1]).click()
    box_of(page, runs[3]).click(modifiers=["Shift"])
    assert chosen(page) == runs[1:4]
    page.keyboard.press("j")
    page.keyboard.press("x")
    assert chosen(page) == runs[1:5]
    page.keyboard.press("k")
    page.keyboard.press("k")
    page.keyboard.press("Shift+X")
    assert chosen(page) == runs[1:2]
    page.keyboard.press("*")
    assert chosen(page) == runs
    page.keyboard.press("x")
    assert chosen(page) == [run for run in runs if run != runs[2]]
    assert httpx.post(f"{url}/runs/{runs[5]}/stop").status_code == 200
    newest = submit(url, "later", labels={"team": "keys"}, **WAITING)
    expect(page.locator(f'[data-run="{runs[5]}"] [data-status="stopped"]')).to_be_visible(timeout=20_000)
    page.get_by_role("button", name="1 new").click(timeout=20_000)
    expect(page.locator(f'[data-run="{newest}"]')).to_be_visible()
    assert chosen(page) == [run for run in runs if run != runs[2]]
    expect(page.get_by_text("5 selected")).to_be_visible()
    expect(page.get_by_role("button", name="Stop 4")).to_be_enabled()
    assert faults_of_access(page) == []
    page.keyboard.press("Escape")
    assert chosen(page) == []
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Next and previous run")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{url}/console/runs/{runs[2]}")


def test_views_are_saved_shared_renamed_and_deleted(replicas: Replicas, own_page: Page) -> None:
    """Keep filters by name in this browser; show the default ones first; open a link that another browser saved."""
    url, page = replicas.urls[0], own_page
    submit(url, "fail at once")
    page.goto(f"{url}/console/runs?status=%5B%22failed%22%5D")
    page.get_by_role("button", name="Save as view").click(timeout=20_000)
    page.get_by_label("Name").fill("Broken <b>")
    page.get_by_role("button", name="Save", exact=True).click()
    bar = page.get_by_role("navigation", name="Views")
    expect(bar.get_by_role("link", name="Broken <b>")).to_have_attribute("aria-current", "page")
    bar.get_by_role("button", name="Manage views").click()
    page.get_by_label("Show Broken <b> at first").click()
    name = page.get_by_label("Name of Broken <b>")
    name.fill("Broken")
    name.press("Enter")
    expect(page.get_by_label("Show Broken at first")).to_be_checked()
    assert faults_of_access(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Overview").click()
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Runs").click()
    expect(page.get_by_role("button", name="failed", exact=True)).to_have_attribute("aria-pressed", "true")
    assert "view=Broken" in page.url
    link = page.url
    page.get_by_role("button", name="failed", exact=True).click()
    expect(bar.get_by_role("link", name="All runs")).to_have_attribute("aria-current", "page")
    with watched_context(page.context.browser or pytest.fail("no browser")) as context:
        elsewhere = context.new_page()
        elsewhere.goto(link)
        elsewhere.get_by_role("button", name="Save as view").click(timeout=20_000)
        expect(elsewhere.get_by_label("Name")).to_have_value("Broken")
    bar.get_by_role("button", name="Manage views").click()
    page.get_by_role("button", name="Delete Broken").click()
    page.keyboard.press("Escape")
    expect(bar).to_have_count(0)
    assert page.evaluate("localStorage.getItem('coordinator.views')") == '{"views":[],"default":null}'


def test_counts_of_last_day_lead_to_runs_that_ended_in_it(replicas: Replicas, own_page: Page) -> None:
    url, page = replicas.urls[0], own_page
    run = submit(url, "fail for the count")
    eventually(lambda: statuses(url, [run]) == ["failed"], 30, what="the run to fail")
    page.goto(f"{url}/console/")
    page.locator('[data-count="failed"]').get_by_role("link").click(timeout=20_000)
    expect(page.get_by_role("button", name="Remove the filter ended since")).to_be_visible()
    expect(page.get_by_role("button", name="failed", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(page.locator(f'[data-run="{run}"]')).to_be_visible(timeout=20_000)
    assert "ended_after=" in page.url


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_list_is_accessible_on_a_phone(replicas: Replicas, browser: Browser, colours: str) -> None:
    """Show rows no wider than the screen, in both colours."""
    url = replicas.urls[0]
    runs = waiting_runs(url, f"phone-{colours}", 3)
    with watched_context(browser, (360, 740)) as context:
        page = context.new_page()
        page.emulate_media(color_scheme="dark" if colours == "dark" else "light")
        open_list(page, url, f"phone-{colours}", 3)
        box_of(page, runs[0]).click()
        assert faults_of_access(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
