"""The pages of schedules: the list, next times in the chosen zone, decisions, pause, resume and trigger."""

import httpx
from playwright.sync_api import Page, expect

from tests.support.browser import Replicas, faults_of_access

SOON = 20_000


def test_operator_looks_at_pauses_and_triggers_schedule(replicas: Replicas, page: Page) -> None:
    url = replicas.urls[0]
    run = {"type": "start_session", "parameters": {"prompt": "<b>report</b>"}, "additional_demands": {"tags": ["none"]}}
    body = {"spec": {"cron": ["30 4 * * *"]}, "timezone": "Asia/Tokyo", "run": run, "note": "<i>daily</i>"}
    httpx.put(f"{url}/schedules/report", json=body).raise_for_status()
    upcoming = httpx.get(f"{url}/schedules/report/next").json()["times"]
    page.goto(f"{url}/console/")
    page.get_by_role("link", name="Schedules").click()
    row = page.locator('[data-schedule="report"]')
    expect(row).to_contain_text("active", timeout=SOON)
    expect(row.locator(f'time[datetime="{upcoming[0]["fire_at"]}"]')).to_be_visible()
    assert faults_of_access(page) == []
    row.get_by_role("link").click()
    expect(page.locator("[data-next]")).to_have_count(10, timeout=SOON)
    expect(page.locator("[data-next]").first).to_contain_text("04:30:00+09:00")
    expect(page.get_by_text("<i>daily</i>")).to_be_visible()
    page.get_by_role("button", name="Trigger…").click()
    page.get_by_role("button", name="Submit it").click()
    fires = page.locator("[data-fire]")
    expect(fires).to_have_count(1, timeout=SOON)
    expect(fires.first).to_contain_text("pending")
    page.get_by_role("button", name="Trigger…").click()
    page.get_by_role("button", name="Submit it").click()
    expect(page.get_by_role("alertdialog")).to_contain_text("It was skipped", timeout=SOON)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Pause…").click()
    page.get_by_label("Reason").fill("holiday")
    page.get_by_role("button", name="Pause it").click()
    expect(page.locator("[data-pause-reason]")).to_have_text("Paused: holiday", timeout=SOON)
    assert faults_of_access(page) == []
    page.get_by_role("button", name="Resume…").click()
    page.get_by_role("button", name="Resume it").click()
    expect(page.get_by_role("button", name="Pause…")).to_be_visible(timeout=SOON)
    fires.nth(1).get_by_role("link").click()
    page.get_by_role("tab", name="Properties").click()
    expect(page.get_by_text("schedule=report")).to_be_visible(timeout=SOON)
    httpx.delete(f"{url}/schedules/report").raise_for_status()
