"""Act on many runs at once from the list, in Chromium against two web processes, a worker and a runner."""

import httpx
from playwright.sync_api import Page, expect

from tests.support.browser import Replicas, faults_of_access, submit

# No runner takes these runs: they wait until they are stopped.
WAITING = {"additional_demands": {"tags": ["none-has-it"]}}


def waiting_runs(url: str, team: str, number: int) -> list[str]:
    """Submit runs that wait; return them as the list shows them, newest first."""
    return [submit(url, f"wait {n}", labels={"team": team}, **WAITING) for n in range(number)][::-1]


def statuses(url: str, runs: list[str]) -> list[str]:
    return [str(httpx.get(f"{url}/runs/{run}").json()["status"]) for run in runs]


def test_chosen_runs_are_stopped_after_a_dry_run(replicas: Replicas, page: Page) -> None:
    url = replicas.urls[0]
    runs = waiting_runs(url, "chosen", 4)
    page.goto(f"{url}/console/runs?label=%5B%22team%3Dchosen%22%5D")
    expect(page.locator("[data-run]")).to_have_count(4, timeout=20_000)
    for run in runs[:3]:
        page.get_by_label(f"Select {run}", exact=True).click()
    page.get_by_role("button", name="Stop 3").click()
    dialog = page.get_by_role("alertdialog")
    expect(dialog).to_contain_text("3 runs match", timeout=20_000)
    expect(dialog.get_by_role("list", name="Examples")).to_contain_text("wait 3")
    assert faults_of_access(page) == []
    assert set(statuses(url, runs)) == {"pending"}
    dialog.get_by_role("button", name="Stop 3").click()
    expect(dialog).to_contain_text("3 changed", timeout=30_000)
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator('[data-run] [data-status="stopped"]')).to_have_count(3, timeout=20_000)
    assert statuses(url, runs) == ["stopped"] * 3 + ["pending"]
    expect(page.get_by_text("4 shown")).to_be_visible()


def test_all_runs_that_match_filters_are_stopped_replayed_and_deleted(replicas: Replicas, page: Page) -> None:
    """Act on runs beyond the loaded page; runs that do not match stay as they are."""
    url = replicas.urls[0]
    runs, other = waiting_runs(url, "all", 130), waiting_runs(url, "other", 1)
    page.goto(f"{url}/console/runs?label=%5B%22team%3Dall%22%5D")
    expect(page.get_by_role("grid")).to_be_visible(timeout=20_000)

    def act(name: str, said: str) -> None:
        page.get_by_role("button", name="Select all that match").click()
        page.get_by_role("button", name=name, exact=True).click()
        dialog = page.get_by_role("alertdialog")
        expect(dialog).to_contain_text(said, timeout=20_000)
        dialog.get_by_role("button", name=f"{name} ", exact=False).click()
        expect(dialog).to_contain_text("changed.", timeout=60_000)
        dialog.get_by_role("button", name="Close").click()

    act("Stop", "130 runs match")
    assert set(statuses(url, runs)) == {"stopped"}
    assert statuses(url, other) == ["pending"]
    act("Replay", "130 runs match")
    found = httpx.get(f"{url}/runs", params={"label": "team=all", "status": "pending"}).json()["runs"]
    assert len(found) == 130
    assert {run["replay_of"] for run in found} == set(runs)
    act("Delete", "260 runs match")
    left = httpx.get(f"{url}/runs", params={"label": "team=all"}).json()["runs"]
    assert {run["run_id"] for run in left} == {run["run_id"] for run in found}
