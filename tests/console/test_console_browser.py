"""Drive the console in Chromium against a real `coordinator up`; without a browser these tests fail and say so."""

import httpx
from playwright.sync_api import Page, expect

from models.core.callers import Role
from runtime.settings import Settings
from testkit.up_process import Up
from tests.support.browser import faults_of_access, number_of, submit
from tests.support.callers import make_key, web_with_auth
from tests.support.db_verbs import DbVerbs

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def test_runs_move_on_the_page_from_submission_to_end(up: Up, page: Page) -> None:
    """Show a run that another replica took, and follow it live; a deep link opens the same run and its log."""
    first, second = up.urls
    page.goto(f"{first}/console/runs")
    expect(page.get_by_text("No run yet")).to_be_visible(timeout=20_000)
    run = submit(second, "Say hello", agent_name="coder", labels={"team": "web"})
    row = page.locator(f'[data-run="{run}"]')
    expect(row.locator('[data-status="completed"]')).to_be_visible(timeout=20_000)
    expect(row).to_contain_text("team=web")
    page.goto(f"{second}/console/runs/{run}")
    expect(page.get_by_role("region", name="Log")).to_contain_text("writing the answer", timeout=20_000)
    page.get_by_role("tab", name="Parameters and result").click()
    expect(page.get_by_text("You said: Say hello", exact=True)).to_be_visible()
    assert faults_of_access(page) == []


def test_filters_stand_in_the_address_and_hostile_text_stays_text(up: Up, page: Page) -> None:
    url = up.urls[0]
    run = submit(url, f"fail {HOSTILE}", agent_name=HOSTILE[:60], labels={HOSTILE[:60]: HOSTILE[:100]})
    page.goto(f"{url}/console/runs?status=%5B%22failed%22%5D")
    row = page.locator(f'[data-run="{run}"]')
    expect(row).to_contain_text("onerror=", timeout=20_000)
    expect(page.locator("[data-run]")).to_have_count(1)
    expect(page.get_by_role("button", name="failed", exact=True)).to_have_attribute("aria-pressed", "true")
    assert faults_of_access(page) == []
    for path in (f"runs/{run}", "sessions", "runners", ""):
        page.goto(f"{url}/console/{path}")
        expect(page.get_by_role("status")).to_have_text("live", timeout=20_000)
        assert page.title() == "Coordinator"
        assert page.locator("main img").count() == 0
        assert faults_of_access(page) == [], path


def hostile_text_stays_text(page: Page, url: str, within: float = 20_000) -> None:
    """Look at the prompt of a run and at a line of its log."""
    run = submit(url, HOSTILE)
    session = httpx.get(f"{url}/runs/{run}").json()["session_id"]
    event = {"event_type": "message", "session_id": session, "run_id": run, "timestamp": "2026-01-01T00:00:00Z"}
    said = httpx.post(f"{url}/sessions/{session}/events", json={**event, "role": "assistant", "content": HOSTILE})
    assert said.status_code in {200, 201}, said.text
    page.goto(f"{url}/console/runs?q={run}")
    expect(page.locator(f'[data-run="{run}"]')).to_contain_text("onerror=", timeout=within)
    page.goto(f"{url}/console/runs/{run}")
    expect(page.get_by_role("region", name="Log")).to_contain_text("onerror=", timeout=within)
    assert page.title() == "Coordinator"
    assert page.locator("main img").count() == 0


def test_hostile_prompt_and_line_of_log_stay_text(up: Up, page: Page) -> None:
    hostile_text_stays_text(page, up.urls[0])


def test_overview_counts_and_draws_what_happens(up: Up, page: Page) -> None:
    """Show figures that the API confirms, and new ones without a reload; a queue that no runner serves says so."""
    first, second = up.urls
    page.goto(f"{first}/console/")
    completed, ready = (page.locator(f'[data-count="{name}"] dd') for name in ("completed", "ready"))
    expect(completed).to_have_text(str(number_of(first, status="completed")), timeout=20_000)
    expect(ready).to_have_text("0")
    run = submit(second, "count me")
    waits = submit(second, "train", additional_demands={"tags": ["gpu-9"]})
    assert httpx.get(f"{second}/runs/{run}?wait=20", timeout=30).json()["status"] == "completed"
    expect(page.locator("tr[data-queue]").filter(has_text="gpu-9")).to_contain_text("none", timeout=20_000)
    expect(ready).to_have_text("1")
    expect(completed).to_have_text(str(number_of(first, status="completed")), timeout=60_000)
    chart = page.get_by_role("figure", name="Runs per minute")
    expect(chart.locator('[data-line="submitted"] b')).to_have_text(str(number_of(first)), timeout=60_000)
    expect(page.get_by_role("region", name="Coordinator")).to_contain_text("2 on time")
    assert faults_of_access(page) == []
    assert httpx.post(f"{first}/runs/{waits}/stop").status_code == 200
    expect(ready).to_have_text("0", timeout=20_000)
    completed.get_by_role("link").click()
    expect(page.locator("[data-run]")).to_have_count(number_of(first, status="completed"))


def test_page_explains_run_that_waits_and_stops_it(up: Up, page: Page) -> None:
    url = up.urls[0]
    run = submit(url, "wait", additional_demands={"tags": ["gpu"]})
    page.goto(f"{url}/console/runs/{run}")
    expect(page.get_by_role("region", name="Why")).to_contain_text("gpu", timeout=20_000)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Stop it").click()
    expect(page.locator('main [data-status="stopped"]').first).to_be_visible(timeout=20_000)


def test_page_misses_nothing_while_web_processes_are_replaced(up: Up, page: Page) -> None:
    """Keep the page open over a rolling deploy; a run submitted meanwhile and one after it appear by themselves."""
    url = up.urls[0]
    page.goto(f"{url}/console/runs")
    expect(page.get_by_role("status")).to_have_text("live", timeout=20_000)
    page.evaluate("window.kept = 'this page'")
    during = submit(url, "sleep 1")
    ended = up.rolling_deploy()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    after = submit(url, "after the deploy")
    for run in (during, after):
        expect(page.locator(f'[data-run="{run}"] [data-status="completed"]')).to_be_visible(timeout=30_000)
    assert page.evaluate("window.kept") == "this page"


def test_each_role_signs_in_and_out_with_its_key(settings: Settings, db: DbVerbs, page: Page) -> None:
    """Refuse a wrong key in words; keep no key where a script could read it."""
    with web_with_auth(settings) as web:
        page.goto(f"{web.client.url}/console/runs")
        for role, owner in ((Role.ADMIN, None), (Role.USER, "ann"), (Role.RUNNER, "bob")):
            key = make_key(db, role, owner)
            for given, seen in (
                (key[:-1] + ("0" if key[-1] != "0" else "1"), "The credential was rejected"),
                (key, "No run yet"),
            ):
                page.get_by_label("API key").fill(given)
                page.get_by_role("button", name="Sign in").click()
                expect(page.get_by_text(seen)).to_be_visible(timeout=20_000)
            audit = page.get_by_role("link", name="Audit")
            expect(audit).to_have_count(1 if role is Role.ADMIN else 0)
            if role is Role.ADMIN:
                audit.click()
                expect(page.get_by_role("region", name="Acts")).to_contain_text("key created")
                assert faults_of_access(page) == []
                page.get_by_role("link", name="Runs").click()
            assert key not in page.evaluate("document.cookie + JSON.stringify({...localStorage, ...sessionStorage})")
            page.get_by_role("button", name=f"{owner or role} · sign out").click()
            expect(page.get_by_role("heading", name="Sign in")).to_be_visible(timeout=20_000)
        assert faults_of_access(page) == []
