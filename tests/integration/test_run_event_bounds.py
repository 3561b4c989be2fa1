"""Bound on a run's stored events: events beyond it are left out with one notice, and answers stay the same."""

from typing import Any

import pytest

from models.core.callers import ADMIN
from models.expiry.cleanup import upkeep
from models.feed.append import LeftOut, NewEvent, StoredEvent, append_events
from models.runs.results import run_result
from models.state.runs import Run
from runtime.settings import Settings
from testkit.recorded_events import RECORDED_EVENTS
from tests.integration.test_run_events import event_of, resumed
from tests.support.clocks import pass_time
from tests.support.contenders import run_in_threads
from tests.support.db_verbs import DbVerbs
from tests.support.reports import accepted, running
from tests.support.web import served, until_ready

MOST = 10


def line_of(run: Run, number: int, **values: Any) -> NewEvent:
    """Build the event of a line that a run printed."""
    return event_of(run.session_id, str(number), event_type="message", **values)


def append_bounded(db: DbVerbs, *items: NewEvent, most: int = MOST) -> list[type]:
    """Append these events under a bound; return what became of them."""
    return [type(result) for result in db.do(append_events, items, run_events_max=most)]


def texts_of(db: DbVerbs, run: Run) -> list[str]:
    """Return the texts of a run's own events, the coordinator's notice as its role."""
    rows = db.rows(
        f"SELECT frame FROM {RECORDED_EVENTS} WHERE run_id = :r AND kind = 'event' AND event_type <> 'run_start' ORDER BY id",
        r=run.run_id,
    )
    return [row.frame["data"].get("result_text") or row.frame["data"]["role"] for row in rows]


def bound_holds(db: DbVerbs) -> None:
    """Check that one batch and several store ten lines, then one notice, and nothing more."""
    run = running(db)
    assert append_bounded(db, *[line_of(run, number) for number in range(4)]) == [StoredEvent] * 4
    assert append_bounded(db, *[line_of(run, number) for number in range(4, 13)]) == [StoredEvent] * 6 + [LeftOut] * 3
    for _ in range(3):
        append_bounded(db, line_of(run, 99))
    found = texts_of(db, run)
    assert found == [*map(str, range(10)), "system"], f"stored beyond the bound: {found}"


def test_events_beyond_bound_are_left_out_with_one_notice(db: DbVerbs) -> None:
    """Store the notice as a marked event of the run."""
    bound_holds(db)
    frame = db.one(f"SELECT frame FROM {RECORDED_EVENTS} WHERE frame->'data'->>'role' = 'system'")
    assert frame["data"]["content"] == [
        {
            "type": "text",
            "text": "[coordinator] Events of this run beyond 10 are not stored (COORDINATOR_RUN_EVENTS_MAX)",
            "notice": True,
        }
    ]


def test_bound_counts_each_run_alone(db: DbVerbs) -> None:
    """Mix runs in one batch; events of no run are not bounded."""
    runner = db.runner()
    first, other = running(db, runner), running(db)
    items = [line_of(run, number) for number in range(MOST + 2) for run in (first, other)]
    assert append_bounded(db, *items).count(LeftOut) == 4
    accepted(db, first, "completed")
    assert append_bounded(db, *[line_of(first, number) for number in range(MOST + 2)]) == [StoredEvent] * (MOST + 2)
    second = resumed(db, first.session_id, runner)
    assert append_bounded(db, *[line_of(second, number) for number in range(MOST)]) == [StoredEvent] * MOST
    late = line_of(first, 1, claim_token=first.claim_token)
    assert append_bounded(db, late) == [LeftOut]


def test_result_and_end_are_stored_beyond_bound(db: DbVerbs) -> None:
    """Keep the result despite a flood of lines."""
    run = running(db)
    append_bounded(db, *[line_of(run, number) for number in range(MOST + 5)])
    assert append_bounded(db, event_of(run.session_id, "done")) == [StoredEvent]
    accepted(db, run, "completed")
    assert db.do(run_result, ADMIN, run.run_id) == ("done", None)
    assert texts_of(db, run)[-1] == "done" or db.count(RECORDED_EVENTS, "event_type = 'run_completed'") == 1


def test_flood_of_results_is_bounded_too(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow results a reserve beyond the bound."""
    monkeypatch.setattr("models.feed.event_counts.MOST_NEEDED", 3)
    run = running(db)
    results = append_bounded(db, *[event_of(run.session_id, str(number)) for number in range(MOST + 10)])
    assert results == [StoredEvent] * (MOST + 3) + [LeftOut] * 7


def test_repeated_event_counts_once_and_is_not_left_out(db: DbVerbs) -> None:
    """Answer a retry at the bound like the first try, without a notice."""
    run = running(db)
    items = [line_of(run, number, event_key=f"k{number}") for number in range(MOST)]
    for _ in range(3):
        assert append_bounded(db, *items) == [StoredEvent] * MOST
    assert "system" not in texts_of(db, run)
    assert append_bounded(db, line_of(run, 11)) == [LeftOut]
    assert append_bounded(db, *items) == [StoredEvent] * MOST


def test_concurrent_batches_at_bound_write_one_notice(db: DbVerbs) -> None:
    """Allow batches that see the same count to exceed it by their size."""
    run = running(db)
    append_bounded(db, *[line_of(run, number) for number in range(MOST)])
    run_in_threads(8, lambda number: append_bounded(db, line_of(run, number)))
    assert texts_of(db, run).count("system") == 1
    other = running(db)
    run_in_threads(8, lambda number: append_bounded(db, *[line_of(other, number * 10 + place) for place in range(4)]))
    assert MOST <= len([text for text in texts_of(db, other) if text != "system"]) <= MOST + 7 * 4
    assert db.one("SELECT events FROM run_event_counts WHERE run_id = :r", r=other.run_id) == len(
        [text for text in texts_of(db, other) if text != "system"]
    )


def test_nothing_is_counted_without_bound(db: DbVerbs) -> None:
    run = running(db)
    assert append_bounded(db, *[line_of(run, number) for number in range(50)], most=0) == [StoredEvent] * 50
    assert db.count("run_event_counts") == 0


def test_counts_are_removed_a_day_after_the_run(db: DbVerbs) -> None:
    """Keep those of runs in hand."""
    ended, running_one = running(db), running(db)
    append_bounded(db, line_of(ended, 1), line_of(running_one, 1))
    accepted(db, ended, "completed")
    db.do(upkeep)
    assert db.count("run_event_counts") == 2
    pass_time(db, "runs", "completed_at", 90_000)
    db.do(upkeep)
    assert db.one("SELECT run_id FROM run_event_counts") == running_one.run_id


def test_answers_stay_201_beyond_bound(settings: Settings) -> None:
    """Send one event, a list, with and without a token: deployed runners do not look."""
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
        assert [result["code"] for result in many.json()["results"]] == [201] * 3
        shown = client.get(path).json()["events"]
        assert [item["content"] for item in shown if item["role"] is None and item["event_type"] == "message"] == [
            "x"
        ] * 3
        assert [item["event_type"] for item in shown] == ["run_start", *["message"] * 4]
        assert list(shown[-1]) == list(shown[-2])
