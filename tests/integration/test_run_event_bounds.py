"""The bound on a run's stored events: what goes beyond is left out, said once, and costs no answer."""

import pytest

from models.core.callers import ADMIN
from models.expiry.cleanup import upkeep
from models.feed.append import LeftOut, StoredEvent
from models.runs.results import run_result
from runtime.settings import Settings
from tests.support.clocks import pass_time
from tests.support.contenders import crowd
from tests.support.reports import accepted, running
from tests.support.run_events import MOST, append_bounded, bound_holds, line_of, resumed, said, texts_of
from tests.support.truth import Truth
from tests.support.web import served, until_ready


def test_events_beyond_the_bound_are_left_out_and_that_is_said_once(truth: Truth) -> None:
    """The notice is an event of the run like others, marked as such."""
    bound_holds(truth)
    frame = truth.one("SELECT frame FROM events WHERE frame->'data'->>'role' = 'system'")
    assert frame["data"]["content"] == [
        {
            "type": "text",
            "text": "[coordinator] Events of this run beyond 10 are not stored (COORDINATOR_RUN_EVENTS_MAX)",
            "notice": True,
        }
    ]


def test_bound_counts_each_run_alone(truth: Truth) -> None:
    """Also in one batch; what belongs to no run is not bounded."""
    runner = truth.runner()
    first, other = running(truth, runner), running(truth)
    items = [line_of(run, number) for number in range(MOST + 2) for run in (first, other)]
    assert append_bounded(truth, *items).count(LeftOut) == 4
    accepted(truth, first, "completed")
    assert append_bounded(truth, *[line_of(first, number) for number in range(MOST + 2)]) == [StoredEvent] * (MOST + 2)
    second = resumed(truth, first.session_id, runner)
    assert append_bounded(truth, *[line_of(second, number) for number in range(MOST)]) == [StoredEvent] * MOST
    late = line_of(first, 1, claim_token=first.claim_token)
    assert append_bounded(truth, late) == [LeftOut]


def test_result_and_end_are_stored_beyond_the_bound(truth: Truth) -> None:
    """A flood of lines costs no run its result."""
    run = running(truth)
    append_bounded(truth, *[line_of(run, number) for number in range(MOST + 5)])
    assert append_bounded(truth, said(run.session_id, "done")) == [StoredEvent]
    accepted(truth, run, "completed")
    assert truth.do(run_result, ADMIN, run.run_id) == ("done", None)
    assert texts_of(truth, run)[-1] == "done" or truth.count("events", "event_type = 'run_completed'") == 1


def test_flood_of_results_is_bounded_too(truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound and a reserve."""
    monkeypatch.setattr("models.feed.event_counts.MOST_NEEDED", 3)
    run = running(truth)
    results = append_bounded(truth, *[said(run.session_id, str(number)) for number in range(MOST + 10)])
    assert results == [StoredEvent] * (MOST + 3) + [LeftOut] * 7


def test_repeated_event_counts_once_and_is_not_left_out(truth: Truth) -> None:
    """A retry at the bound is answered as the first time, and nothing is said."""
    run = running(truth)
    items = [line_of(run, number, event_key=f"k{number}") for number in range(MOST)]
    for _ in range(3):
        assert append_bounded(truth, *items) == [StoredEvent] * MOST
    assert "system" not in texts_of(truth, run)
    assert append_bounded(truth, line_of(run, 11)) == [LeftOut]
    assert append_bounded(truth, *items) == [StoredEvent] * MOST


def test_notice_is_one_however_many_reach_the_bound_at_once(truth: Truth) -> None:
    """Batches that see the same count may exceed it by what they hold."""
    run = running(truth)
    append_bounded(truth, *[line_of(run, number) for number in range(MOST)])
    crowd(8, lambda number: append_bounded(truth, line_of(run, number)))
    assert texts_of(truth, run).count("system") == 1
    other = running(truth)
    crowd(8, lambda number: append_bounded(truth, *[line_of(other, number * 10 + place) for place in range(4)]))
    assert MOST <= len([one for one in texts_of(truth, other) if one != "system"]) <= MOST + 7 * 4
    assert truth.one("SELECT events FROM run_event_counts WHERE run_id = :r", r=other.run_id) == len(
        [one for one in texts_of(truth, other) if one != "system"]
    )


def test_without_a_bound_nothing_is_counted(truth: Truth) -> None:
    """And nothing is left out."""
    run = running(truth)
    assert append_bounded(truth, *[line_of(run, number) for number in range(50)], most=0) == [StoredEvent] * 50
    assert truth.count("run_event_counts") == 0


def test_counts_go_a_day_after_the_run(truth: Truth) -> None:
    """Those of runs in hand stay."""
    ended, running_one = running(truth), running(truth)
    append_bounded(truth, line_of(ended, 1), line_of(running_one, 1))
    accepted(truth, ended, "completed")
    truth.do(upkeep)
    assert truth.count("run_event_counts") == 2
    pass_time(truth, "runs", "completed_at", 90_000)
    truth.do(upkeep)
    assert truth.one("SELECT run_id FROM run_event_counts") == running_one.run_id


def test_answers_stay_201_beyond_the_bound(settings: Settings) -> None:
    """One event, a list, with and without a token: deployed runners do not look."""
    with served(settings.model_copy(update={"run_events_max": 3})) as web:
        until_ready(web)
        client = web.client
        run = client.started(client.register())
        path = f"/sessions/{run['session_id']}/events"
        event = {"event_type": "message", "session_id": run["session_id"], "timestamp": "t", "content": "x"}
        for _ in range(5):
            answer = client.post(path, event)
            assert (answer.status_code, answer.json()) == (201, {"ok": True})
        many = client.post(path, [{**event, "claim_token": run["claim_token"]}] * 3)
        assert (many.status_code, many.json()["ok"]) == (201, True)
        assert [one["code"] for one in many.json()["results"]] == [201] * 3
        shown = client.get(path).json()["events"]
        assert [one["content"] for one in shown if one["role"] is None and one["event_type"] == "message"] == ["x"] * 3
        assert [one["event_type"] for one in shown] == ["run_start", *["message"] * 4]
        assert list(shown[-1]) == list(shown[-2])
