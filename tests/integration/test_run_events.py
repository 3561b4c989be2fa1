"""Events and results of runs: attribution to a run, and reading a run's own."""

import json
from typing import Any

from models.core.callers import ADMIN, Caller, Role
from models.core.errors import NotFound, ResultNotFound, RunNotCompleted
from models.feed.append import AppendResult, NewEvent, StoredEvent, append_events
from models.feed.pages import read_feed
from models.feed.timeline import EventPage, list_events
from models.runs.results import run_result, session_result
from models.state.runs import Run
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.clocks import counts
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.numbering import number_all
from tests.support.reports import accepted, claimed, idle, running, stop
from tests.support.retention import grow_old, retire


def event_of(session_id: str, text: str, *, event_type: str = "result", **values: Any) -> NewEvent:
    """Build an event of a session; a result unless another type is given."""
    frame = json.dumps({"data": {"event_type": event_type, "session_id": session_id, "result_text": text}})
    return NewEvent(session_id, values.pop("caller", ADMIN), event_type, frame, **values)


def append(db: DbVerbs, *items: NewEvent) -> list[AppendResult]:
    return db.do(append_events, items)


# Bound under test.


def owner_run(db: DbVerbs, *items: NewEvent) -> list[str | None]:
    """Return the run that each of these events is stored with."""
    results = append(db, *items)
    ids = [result.id for result in results if isinstance(result, StoredEvent)]
    assert len(ids) == len(items), results
    return [db.one(f"SELECT run_id FROM {RECORDED_EVENTS} WHERE id = :i", i=event_id) for event_id in ids]


def resumed(db: DbVerbs, session_id: str, runner: Runner) -> Run:
    """Start the next run of a session."""
    db.resume(session_id)
    (run,) = db.claim(runner)
    accepted(db, run, "started")
    return run


def test_late_event_with_token_belongs_to_its_own_run(db: DbVerbs) -> None:
    """Give a result with the former run's token to the former run, while the next run executes."""
    runner = db.runner()
    first = running(db, runner)
    accepted(db, first, "completed")
    second = resumed(db, first.session_id, runner)
    append(db, event_of(second.session_id, "second", claim_token=second.claim_token))
    append(db, event_of(first.session_id, "first", claim_token=first.claim_token))
    accepted(db, second, "completed")
    found = [db.do(run_result, ADMIN, run.run_id) for run in (first, second)]
    assert found == [("first", None), ("second", None)], f"results of the wrong run: {found}"


def test_event_without_token_belongs_to_run_in_hand(db: DbVerbs) -> None:
    """Count claimed, running and stopping runs; deployed runners send neither token nor run."""
    run = claimed(db)
    session = run.session_id
    assert owner_run(db, event_of(session, "claimed")) == [run.run_id]
    accepted(db, run, "started")
    assert owner_run(db, event_of(session, "running")) == [run.run_id]
    stop(db, session)
    assert owner_run(db, event_of(session, "stopping")) == [run.run_id]
    accepted(db, run, "stopped")
    assert owner_run(db, event_of(session, "ended")) == [None]


def test_pending_run_owns_no_event_until_claimed(db: DbVerbs) -> None:
    """Attribute an event between two runs to the session alone."""
    runner = db.runner()
    first = idle(db, runner)
    db.resume(first.session_id)
    assert owner_run(db, event_of(first.session_id, "between")) == [None]
    (second,) = db.claim(runner)
    assert owner_run(db, event_of(first.session_id, "after")) == [second.run_id]


def test_event_that_names_run_of_its_session_belongs_to_it(db: DbVerbs) -> None:
    """Name an ended run, one in hand and a pending one; a token takes precedence."""
    runner = db.runner()
    first = running(db, runner)
    accepted(db, first, "completed")
    second = resumed(db, first.session_id, runner)
    third = db.resume(first.session_id)
    session = first.session_id
    assert owner_run(
        db,
        event_of(session, "1", run_id=first.run_id),
        event_of(session, "2", run_id=second.run_id),
        event_of(session, "3", run_id=third.run_id),
        event_of(session, "4", run_id=first.run_id, claim_token=second.claim_token),
    ) == [first.run_id, second.run_id, third.run_id, second.run_id]


def test_named_run_of_another_session_is_ignored(db: DbVerbs) -> None:
    """Treat an unknown run the same: the event counts as if it named none."""
    run, other = running(db), running(db)
    session = run.session_id
    named = [event_of(session, "x", run_id=run_id) for run_id in (other.run_id, "run_unknown", "\ufffd")]
    assert owner_run(db, *named) == [run.run_id] * 3
    accepted(db, run, "completed")
    assert owner_run(db, event_of(session, "y", run_id=other.run_id)) == [None]


def test_event_of_batch_belongs_to_run_of_its_own_session(db: DbVerbs) -> None:
    """Store events of many sessions in one flush."""
    runs = [running(db) for _ in range(3)]
    items = [event_of(run.session_id, str(place)) for place in range(4) for run in runs]
    assert owner_run(db, *items) == [run.run_id for run in runs] * 4


def test_repeated_event_keeps_its_first_run(db: DbVerbs) -> None:
    """Retry while the next run executes."""
    runner = db.runner()
    first = running(db, runner)
    item = event_of(first.session_id, "once", event_key="k")
    assert owner_run(db, item) == [first.run_id]
    accepted(db, first, "completed")
    resumed(db, first.session_id, runner)
    assert owner_run(db, item) == [first.run_id]


def test_events_of_run_are_listed_alone_and_page_by_page(db: DbVerbs) -> None:
    """Include its start and end, but neither other runs' events nor the session's own."""
    runner = db.runner()
    first = running(db, runner)
    session = first.session_id
    append(db, *[event_of(session, f"first {number}", event_type="message") for number in range(3)])
    accepted(db, first, "completed")
    append(db, event_of(session, "nobody's", event_type="message"))
    second = resumed(db, session, runner)
    append(db, event_of(session, "second", event_type="message"))
    number_all(db)
    append(db, event_of(session, "second, not numbered", event_type="message"))

    def read(run_id: str | None, **values: object) -> EventPage:
        page = db.do(list_events, ADMIN, session, run_id=run_id, **values)
        assert isinstance(page, EventPage)
        return page

    def texts(page: EventPage) -> list[str]:
        return [
            json.loads(event.data).get("result_text") or json.loads(event.data)["event_type"] for event in page.events
        ]

    assert texts(read(first.run_id)) == ["run_start", "first 0", "first 1", "first 2", "run_completed"]
    assert texts(read(second.run_id)) == ["run_start", "second", "second, not numbered"]
    assert {event.run_id for event in read(second.run_id).events} == {second.run_id}
    assert [event.run_id for event in read(None).events if "nobody" in event.data] == [None]
    assert texts(read("run_unknown")) == []
    assert read(None).next_cursor is None
    walked, cursor = [], None
    while True:
        page = read(first.run_id, after=cursor, limit=2)
        walked += texts(page)
        cursor = page.next_cursor
        if cursor is None:
            break
    assert walked == texts(read(first.run_id))


def test_numbered_event_carries_its_run(db: DbVerbs) -> None:
    """Read it with the frame, as the feed does."""
    run = running(db)
    append(db, event_of(run.session_id, "x"))
    number_all(db)
    results = [event for event in db.do(read_feed, 0, limit=100).events if '"result"' in event.frame]
    assert [result.run_id for result in results] == [run.run_id]


def test_run_keeps_its_own_result_after_later_runs(db: DbVerbs) -> None:
    """Compare the session's result, which is the newest of all."""
    runner = db.runner()
    first = running(db, runner)
    session = first.session_id
    append(db, event_of(session, "draft"), event_of(session, "first"))
    accepted(db, first, "completed")
    second = resumed(db, session, runner)
    append(db, event_of(session, "second"))
    accepted(db, second, "completed")
    third = resumed(db, session, runner)
    accepted(db, third, "completed")
    assert db.do(run_result, ADMIN, first.run_id) == ("first", None)
    assert db.do(run_result, ADMIN, second.run_id) == ("second", None)
    assert db.do(run_result, ADMIN, third.run_id) == ResultNotFound(third.run_id)
    assert db.do(session_result, ADMIN, session) == ("second", None)


def test_run_that_is_not_completed_has_no_result(db: DbVerbs) -> None:
    """Ignore what it wrote while at work, failed or stopped."""
    run = running(db)
    append(db, event_of(run.session_id, "early"))
    assert db.do(run_result, ADMIN, run.run_id) == RunNotCompleted(run.run_id, "running")
    accepted(db, run, "failed", error="no")
    assert db.do(run_result, ADMIN, run.run_id) == RunNotCompleted(run.run_id, "failed")


def test_result_of_another_owners_run_is_not_found(db: DbVerbs) -> None:
    ann, bob = Caller(Role.USER, "ann"), Caller(Role.USER, "bob")
    run = running(db, caller=ann)
    append(db, event_of(run.session_id, "hers"))
    accepted(db, run, "completed")
    assert db.do(run_result, bob, run.run_id) == NotFound("run", run.run_id)
    assert db.do(run_result, ADMIN, "run_unknown") == NotFound("run", "run_unknown")
    assert db.do(run_result, ann, run.run_id) == ("hers", None)


def test_second_attempt_replaces_result_of_first(db: DbVerbs) -> None:
    run = running(db, max_attempts=2)
    append(db, event_of(run.session_id, "lost", claim_token=run.claim_token))
    db.rows("UPDATE runners SET lost_at = now()")
    assert counts(db) == {"runs taken": 1}
    (again,) = db.claim(db.runner())
    accepted(db, again, "started")
    (stale,) = append(db, event_of(run.session_id, "too late", claim_token=run.claim_token))
    assert not isinstance(stale, StoredEvent)
    append(db, event_of(run.session_id, "found", claim_token=again.claim_token))
    accepted(db, again, "completed")
    assert db.do(run_result, ADMIN, run.run_id) == ("found", None)


def test_after_retention_only_run_of_newest_result_has_one(db: DbVerbs) -> None:
    """Show no former run's result as another's."""
    runner = db.runner()
    first = running(db, runner)
    session = first.session_id
    append(db, event_of(session, "first"))
    accepted(db, first, "completed")
    second = resumed(db, session, runner)
    append(db, event_of(session, 'NUL \\u0000 "quoted"'))
    accepted(db, second, "completed")
    number_all(db)
    grow_old(db)
    retire(db, most=1)
    assert db.count(RECORDED_EVENTS) == 0
    assert db.do(run_result, ADMIN, first.run_id) == ResultNotFound(first.run_id)
    assert db.do(run_result, ADMIN, second.run_id) == ('NUL \\u0000 "quoted"', None)
    assert db.do(session_result, ADMIN, session) == ('NUL \\u0000 "quoted"', None)
    third = resumed(db, session, runner)
    accepted(db, third, "completed")
    assert db.do(run_result, ADMIN, third.run_id) == ResultNotFound(third.run_id)


def test_result_kept_by_previous_release_belongs_to_no_run(db: DbVerbs) -> None:
    """Read a result without a run: it must not be attributed to another one."""
    run = running(db)
    append(db, event_of(run.session_id, "kept"))
    accepted(db, run, "completed")
    db.rows(f"INSERT INTO kept_results SELECT session_id, id, frame FROM {RECORDED_EVENTS} WHERE event_type = 'result'")
    db.rows("DELETE FROM events WHERE event_type = 'result'")
    assert db.do(session_result, ADMIN, run.session_id) == ("kept", None)
    assert db.do(run_result, ADMIN, run.run_id) == ResultNotFound(run.run_id)
