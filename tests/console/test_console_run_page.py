"""Replays, comparisons and long logs on the page of a run."""

import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import Replicas, faults_of_access, submit

SOON = 20_000
# JavaScript rounds it.
BIG = 9007199254740993


def ended(url: str, run: str) -> dict[str, Any]:
    answer = httpx.get(f"{url}/runs/{run}?wait=30", timeout=40).json()
    assert answer["status"] in {"completed", "failed", "stopped"}
    return dict(answer)


def open_run(page: Page, url: str, run: str) -> None:
    page.goto(f"{url}/console/runs/{run}")
    expect(page.locator(f'h1:has-text("{run}")')).to_be_visible(timeout=SOON)


def test_replay_sends_what_was_changed_and_leads_to_new_run(replicas: Replicas, page: Page) -> None:
    """Point at the fault of text that is no JSON; keep integers that JavaScript would round."""
    url = replicas.urls[0]
    run = submit(url, "again", labels={"team": "web"})
    ended(url, run)
    open_run(page, url, run)
    page.get_by_role("button", name="Replay…").click()
    editor = page.get_by_label("Fields of the new run, as JSON")
    expect(editor).to_be_focused()
    expect(page.get_by_text("Nothing is changed")).to_be_visible()
    original = editor.input_value()
    assert faults_of_access(page) == []
    editor.fill(original.replace('"priority": 0,', '"priority": 7'))
    expect(page.get_by_text(re.compile(r"Line \d+, column 3: a comma is expected"))).to_be_visible()
    page.get_by_role("button", name="Show the fault").click()
    expect(editor).to_be_focused()
    assert editor.evaluate("area => area.value.slice(area.selectionStart, area.selectionEnd)") == '"'
    scope = f'"scope": {{"id": {BIG}, "share": 1.50}}'
    editor.fill(original.replace('"priority": 0', f'"priority": 700, {scope}').replace("again", "and again"))
    expect(page.get_by_text("Changed: parameters, priority, scope.")).to_be_visible()
    page.get_by_role("button", name="Replay", exact=True).click()
    expect(page.get_by_role("alert").last).to_contain_text("priority", timeout=SOON)
    editor.fill(editor.input_value().replace("700", "7"))
    with page.expect_request("**/replay") as asked:
        editor.press("Control+Enter")
    changes = '{"parameters":{\n    "prompt": "and again"\n  },"priority":7,' + scope.replace(": {", ":{", 1) + "}"
    assert asked.value.post_data == f'{{"changes":{changes}}}'
    expect(page.get_by_text("Replay of")).to_be_visible(timeout=SOON)
    new = page.url.rpartition("/")[2]
    made = httpx.get(f"{url}/runs/{new}").json()
    assert (made["replay_of"], made["priority"], made["labels"]) == (run, 7, {"team": "web"})
    assert made["parameters"] == {"prompt": "and again"}
    page.get_by_role("main").get_by_role("link", name=run).first.click()
    expect(page.locator(f'h1:has-text("{run}")')).to_be_visible()
    replayed = page.get_by_text("Replayed as")
    expect(replayed.get_by_role("link", name=new)).to_be_visible(timeout=SOON)
    expect(replayed.get_by_role("link", name="all replays")).to_have_count(0)


def test_run_leads_to_all_its_replays(replicas: Replicas, page: Page) -> None:
    """Show the newest three; the list of runs has all of them, by a filter that can be removed."""
    url = replicas.urls[0]
    run = submit(url, "often")
    ended(url, run)
    made = [httpx.post(f"{url}/runs/{run}/replay", json={}).json()["run_id"] for _ in range(4)]
    open_run(page, url, run)
    for each, count in zip(made, (0, 1, 1, 1), strict=True):
        expect(page.get_by_role("main").get_by_role("link", name=each)).to_have_count(count, timeout=SOON)
    page.get_by_role("link", name="all replays").click()
    for each in made:
        expect(page.locator(f'[data-run="{each}"]')).to_be_visible(timeout=SOON)
    expect(page.locator("[data-run]")).to_have_count(len(made))
    expect(page.get_by_role("button", name=f"Remove the filter replay_of: {run}")).to_be_visible()


def test_dialog_returns_focus_and_unfinished_run_has_no_replay(replicas: Replicas, page: Page) -> None:
    url = replicas.urls[0]
    run = submit(url, "short")
    ended(url, run)
    open_run(page, url, run)
    button = page.get_by_role("button", name="Replay…")
    button.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(button).to_be_focused()
    waits = submit(url, "wait", additional_demands={"tags": ["none-has-it"]})
    open_run(page, url, waits)
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_visible()
    expect(button).to_have_count(0)
    assert httpx.post(f"{url}/runs/{waits}/stop").status_code == 200


def test_runs_are_compared_by_parameters_result_and_times(replicas: Replicas, page: Page) -> None:
    """Offer the previous run of the agent; hostile text stays text."""
    url = replicas.urls[0]
    hostile = "<img src=x onerror=\"document.title='owned'\">"
    first = submit(url, f"one\ntwo\n{hostile}", agent_name="compared")
    ended(url, first)
    second = submit(url, f"one\n2\n{hostile}", agent_name="compared", priority=3)
    ended(url, second)
    open_run(page, url, second)
    page.get_by_role("link", name="Compare").click()
    page.get_by_role("link", name="The previous run of this agent").click()
    shown = page.get_by_role("region", name="Result", exact=True)
    expect(shown.locator('[data-sign="-"]')).to_contain_text("two", timeout=SOON)
    expect(shown.locator('[data-sign="+"]')).to_contain_text("2")
    expect(shown).to_contain_text("onerror")
    expect(page.get_by_role("region", name="Demands", exact=True)).to_contain_text("The same in both")
    expect(page.locator("tr[data-differs]", has_text="Priority")).to_contain_text("3")
    expect(page.get_by_role("region", name="Times of both runs")).to_contain_text("later")
    assert page.title() == "Coordinator"
    assert faults_of_access(page) == []
    page.get_by_label("With", exact=True).fill("run_unknown")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("alert").last).to_contain_text("not found", timeout=SOON)


def post_lines(url: str, session: str, run: str, first: int, last: int) -> None:
    text = "".join(f"line {number:06d} {'<b>x</b>' if number % 1000 else 'needle'}\n" for number in range(first, last))
    event = {"event_type": "message", "session_id": session, "run_id": run, "timestamp": "2026-01-01T00:00:00Z"}
    answer = httpx.post(f"{url}/sessions/{session}/events", json={**event, "role": "assistant", "content": text})
    assert answer.status_code in {200, 201}, answer.text


@pytest.fixture
def long_log(replicas: Replicas) -> tuple[str, str]:
    """Return run and session of a log of 100,000 lines and one on stderr."""
    url = replicas.urls[0]
    submitted = httpx.post(f"{url}/runs", json={"type": "start_session", "parameters": {"prompt": "long"}}).json()
    run, session = submitted["run_id"], submitted["session_id"]
    ended(url, run)
    for first in range(0, 100_000, 1000):
        post_lines(url, session, run, first, first + 1000)
    event = {"event_type": "message", "session_id": session, "run_id": run, "timestamp": "2026-01-01T00:00:01Z"}
    red = {**event, "role": "system", "content": "\u001b[31mall is\nlost\u001b[0m"}
    assert httpx.post(f"{url}/sessions/{session}/events", json=red).status_code in {200, 201}
    return run, session


def test_long_log_is_drawn_in_part_searched_and_followed(
    replicas: Replicas, page: Page, long_log: tuple[str, str]
) -> None:
    """Draw few of 100,000 lines, begin at the end, step through matches, show errors alone, copy without a clipboard."""
    url = replicas.urls[0]
    run, session = long_log
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    open_run(page, url, run)
    log = page.get_by_role("region", name="Log")
    expect(log).to_contain_text("lost", timeout=SOON)
    expect(log).to_contain_text(re.compile(r"100,\d{3} lines"))
    drawn = log.locator("[data-index]")
    assert drawn.count() < 200
    assert page.locator("main b", has_text="x").count() == 0
    expect(log.locator('[data-tone="stderr"]', has_text="lost").locator("span").last).to_have_class(
        re.compile("ansi-red")
    )
    search = log.get_by_label("Search the log")
    search.fill("needle")
    expect(log).to_contain_text("100 found")
    search.press("Enter")
    expect(log.locator("[data-current]")).to_contain_text("line 000000")
    search.press("Enter")
    expect(log.locator("[data-current]")).to_contain_text("line 001000")
    search.press("Shift+Enter")
    search.press("Shift+Enter")
    expect(log.locator("[data-current]")).to_contain_text("line 099000")
    post_lines(url, session, run, 100_001, 100_002)
    expect(log.locator("[data-current]")).to_be_visible()
    log.get_by_role("button", name="Jump to the end").click()
    expect(log).to_contain_text("line 100001", timeout=SOON)
    search.fill("")
    log.get_by_role("button", name="Errors only").click()
    expect(log).to_contain_text(re.compile("2 of 100,"))
    log.get_by_role("button", name="Copy the log").click()
    expect(log.get_by_text("Copied")).to_be_visible()
    search.focus()
    page.keyboard.press("Control+V")
    expect(search).to_have_value("all is lost")
    assert drawn.count() < 200
    assert faults_of_access(page) == []
