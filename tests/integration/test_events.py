"""Events of sessions on a real database: stored once, in order, whatever they hold; read page by page."""

import json
from typing import Any

import pytest
from psycopg.errors import SerializationFailure
from sqlalchemy import text

from models.core.callers import ADMIN, Caller, Role
from models.core.errors import BadCursor, NotFound, StaleClaim
from models.feed import append as appending
from models.feed.append import AppendResult, NewEvent, StoredEvent, append_events
from models.feed.sequence import read_head, sequence_feed
from models.feed.timeline import EventPage, list_events
from models.runs.delete import DeleteSession, delete_sessions
from models.state.cursors import write_cursor
from runtime.postgres import is_retryable
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.clocks import counts, pass_time
from tests.support.contenders import run_in_threads, steppers
from tests.support.db_verbs import DbVerbs
from tests.support.reports import accepted, claimed, history, running


def event(session_id: str, content: Any = "hello", **values: Any) -> NewEvent:
    frame = json.dumps({"data": {"event_type": "message", "session_id": session_id, "content": content}})
    return NewEvent(session_id, values.pop("caller", ADMIN), "message", values.pop("frame", frame), **values)


def append(db: DbVerbs, *items: NewEvent) -> list[AppendResult]:
    return db.do(append_events, items)


def stored(db: DbVerbs, *items: NewEvent) -> list[int]:
    """Return the ids of events, all of them accepted."""
    results = append(db, *items)
    assert all(isinstance(result, StoredEvent) for result in results), results
    return [result.id for result in results if isinstance(result, StoredEvent)]


def page(db: DbVerbs, session_id: str, *, caller: Caller = ADMIN, **values: Any) -> EventPage:
    found = db.do(list_events, caller, session_id, **values)
    assert isinstance(found, EventPage), found
    return found


def contents(found: EventPage) -> list[Any]:
    return [json.loads(event.data)["content"] for event in found.events]


def number_all(db: DbVerbs) -> None:
    while db.do(sequence_feed):
        pass


def test_events_are_stored_in_item_order_and_belong_to_active_run(db: DbVerbs) -> None:
    """Attribute events between start and end of a run to that run."""
    run = running(db, caller=Caller(Role.USER, "ann"))
    ids = stored(db, *[event(run.session_id, number) for number in range(5)])
    assert ids == sorted(ids)
    rows = db.rows(f"SELECT run_id, owner, kind, event_type FROM {RECORDED_EVENTS} WHERE id = ANY(:i)", i=ids)
    assert {tuple(row) for row in rows} == {(run.run_id, "ann", "event", "message")}


def test_event_without_active_run_belongs_to_session_only(db: DbVerbs) -> None:
    """Allow clients to write to a session at any time."""
    (event_id,) = stored(db, event(db.start().session_id))
    assert db.one(f"SELECT run_id FROM {RECORDED_EVENTS} WHERE id = :i", i=event_id) is None


def test_event_of_unknown_session_is_not_found(db: DbVerbs) -> None:
    """Store the others of its batch."""
    session_id = db.start().session_id
    results = append(db, event("ses_none"), event(session_id))
    assert results[0] == NotFound("session", "ses_none")
    assert isinstance(results[1], StoredEvent)


def test_session_of_another_owner_is_not_found_for_events(db: DbVerbs) -> None:
    """Refuse writing and reading."""
    ann, bob = Caller(Role.USER, "ann"), Caller(Role.USER, "bob")
    session_id = db.start(caller=ann).session_id
    assert append(db, event(session_id, caller=bob)) == [NotFound("session", session_id)]
    stored(db, event(session_id, caller=ann))
    assert db.do(list_events, bob, session_id) == NotFound("session", session_id)
    assert len(page(db, session_id, caller=ann).events) == 1


def test_same_key_in_session_is_stored_once(db: DbVerbs) -> None:
    """Repeat it in one batch, in another and concurrently: the id is always the same."""
    session_id, other = db.start().session_id, db.start().session_id
    first, second = stored(db, event(session_id, 1, event_key="k"), event(session_id, 2, event_key="k"))
    assert first == second
    assert stored(db, event(session_id, 3, event_key="k")) == [first]
    assert stored(db, event(other, 4, event_key="k")) != [first]
    many = run_in_threads(8, lambda number: stored(db, event(session_id, number, event_key="new")))
    assert len({ids[0] for ids in many}) == 1
    assert contents(page(db, session_id))[0] == 1


def test_batch_executed_twice_is_stored_once(db: DbVerbs) -> None:
    """Lose the answer of the first commit."""
    items = [event(db.start().session_id, number) for number in range(3)]
    assert stored(db, *items) == stored(db, *items)
    assert db.count(RECORDED_EVENTS, "kind = 'event'") == 3


def test_event_removed_before_its_id_is_read_repeats_batch(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no lock that would delay retention; the second time the event is new."""
    item = event(db.start().session_id, event_key="k")
    stored(db, item)
    monkeypatch.setattr(appending, "_IDS", text(appending._IDS.text + " AND false"))
    with pytest.raises(SerializationFailure) as caught:
        append(db, item)
    assert is_retryable(caught.value)


def test_key_of_deleted_session_is_free_in_its_successor(db: DbVerbs) -> None:
    """Reuse the id: keys and events of the old session do not belong to the new one."""
    db.start(session_id="mine")
    old = stored(db, event("mine", "old", event_key="k"))
    db.rows("UPDATE runs SET status = 'stopped', completed_at = now(), ready = false")
    db.rows("UPDATE sessions SET status = 'stopped'")
    db.do(delete_sessions, [DeleteSession(ADMIN, "mine")])
    assert db.do(list_events, ADMIN, "mine") == NotFound("session", "mine")
    db.start(session_id="mine")
    assert stored(db, event("mine", "new", event_key="k")) != old
    assert contents(page(db, "mine")) == ["new"]
    number_all(db)
    assert contents(page(db, "mine")) == ["new"]


def test_stale_token_refuses_its_item_only(db: DbVerbs) -> None:
    run = claimed(db)
    results = append(
        db,
        event(run.session_id, claim_token=run.claim_token),
        event(run.session_id, claim_token="stale"),
        event(run.session_id),
    )
    assert [type(result) for result in results] == [StoredEvent, StaleClaim, StoredEvent]
    assert results[1] == StaleClaim(run.run_id, "claimed")


def test_token_is_stale_once_run_was_given_to_another_runner(db: DbVerbs) -> None:
    """Write from the former process, which may still work."""
    run = running(db, max_attempts=2)
    db.rows("UPDATE runners SET lost_at = now()")
    assert counts(db) == {"runs taken": 1}
    (result,) = append(db, event(run.session_id, claim_token=run.claim_token))
    assert isinstance(result, StaleClaim)
    (again,) = db.claim(db.runner())
    stored(db, event(run.session_id, claim_token=again.claim_token))
    assert isinstance(append(db, event(run.session_id, claim_token=run.claim_token))[0], StaleClaim)


def test_late_events_of_ended_run_are_accepted_until_reclaimed(db: DbVerbs) -> None:
    """Accept them after the end report: no other claim exists."""
    run = running(db)
    accepted(db, run, "completed")
    (event_id,) = stored(db, event(run.session_id, claim_token=run.claim_token))
    assert db.one(f"SELECT run_id FROM {RECORDED_EVENTS} WHERE id = :i", i=event_id) == run.run_id


def test_event_is_a_sign_of_life_of_its_session(db: DbVerbs) -> None:
    """Clear the suspicion of an orphan."""
    run = running(db)
    pass_time(db, "sessions", "last_sign_at", 3600)
    stored(db, event(run.session_id))
    assert db.one("SELECT last_sign_at > now() - interval '60 seconds' FROM sessions")


def test_events_of_one_session_do_not_wait_for_each_other(db: DbVerbs) -> None:
    """Write from two web processes at the same time."""
    session_id = db.start().session_id
    pass_time(db, "sessions", "last_sign_at", 3600)
    with steppers(db.engine, 2) as (first, second):
        first.do(append_events, [event(session_id, 1)]).result()
        assert second.do(append_events, [event(session_id, 2)]).done()
        second.commit()
        first.commit()
    assert sorted(contents(page(db, session_id))) == [1, 2]


@pytest.mark.parametrize(
    "inner",
    ['"\\u0000"', '"\\ud800"', '"é\\u20ac"', "1e300", '"' + "x" * 100_000 + '"', '{"a":{"b":[1,2]},"a":3}'],
    ids=["NUL", "surrogate", "unicode", "number", "large", "key twice"],
)
def test_event_content_is_returned_unchanged(db: DbVerbs, inner: str) -> None:
    """Store json, not jsonb."""
    session_id = db.start().session_id
    stored(db, event(session_id, frame='{"data": {"content": ' + inner + "}}"))
    (found,) = page(db, session_id).events
    assert found.data == '{"content": ' + inner + "}"


def test_list_is_in_feed_order_with_unnumbered_events_last(db: DbVerbs) -> None:
    run = running(db)
    stored(db, event(run.session_id, 1))
    number_all(db)
    stored(db, event(run.session_id, 2), event(run.session_id, 3))
    found = page(db, run.session_id)
    assert [json.loads(item.data).get("content") for item in found.events] == [None, 1, 2, 3]
    assert history(db, run.session_id) == ["run_start", "message", "message", "message"]
    assert [item.feed_cursor is None for item in found.events] == [False, False, True, True]
    assert found.next_cursor is None
    assert found.feed_cursor == db.do(read_head).cursor


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_walk_through_pages_sees_every_event_once(db: DbVerbs, limit: int) -> None:
    """Write and number events between two pages."""
    session_id, other = db.start().session_id, db.start().session_id
    written = iter(range(100))
    for _ in range(7):
        stored(db, event(session_id, next(written)), event(other))
    number_all(db)
    stored(db, event(session_id, next(written)))
    seen: list[Any] = []
    cursor = None
    while True:
        found = page(db, session_id, after=cursor, limit=limit)
        seen += contents(found)
        cursor = found.next_cursor
        if cursor is None:
            break
        stored(db, event(session_id, next(written)))
        if len(seen) < 5:
            number_all(db)
    assert seen == list(range(len(seen)))
    assert len(seen) == next(written)


def test_page_continues_after_cursor_of_any_event(db: DbVerbs) -> None:
    session_id = db.start().session_id
    stored(db, *[event(session_id, number) for number in range(4)])
    number_all(db)
    second = page(db, session_id).events[1]
    assert contents(page(db, session_id, after=second.feed_cursor)) == [2, 3]


def test_page_is_bounded_in_bytes(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Return at least one event, then as many as fit."""
    monkeypatch.setattr("models.feed.timeline.PAGE_BYTES", 1000)
    session_id = db.start().session_id
    noise = json.dumps([str(number) for number in range(300)])
    stored(db, *[event(session_id, f"{number}{noise}") for number in range(3)])
    number_all(db)
    first = page(db, session_id, limit=100)
    assert len(first.events) == 1
    assert first.next_cursor == first.events[0].feed_cursor


@pytest.mark.parametrize("cursor", ["", "v1", "v1..1", "v1.x.", "v1.x.-1", "v2.x.1", "v1.x.1x", "nonsense", "v1.x.²"])
def test_malformed_event_cursor_is_refused(db: DbVerbs, cursor: str) -> None:
    session_id = db.start().session_id
    assert db.do(list_events, ADMIN, session_id, after=cursor) == BadCursor(cursor)


def test_cursor_of_another_epoch_or_ahead_is_refused(db: DbVerbs) -> None:
    session_id = db.start().session_id
    _, epoch, position = db.do(read_head).cursor.split(".")
    for cursor in (f"v1.other.{position}", f"v1.{epoch}.{int(position) + 1}"):
        assert db.do(list_events, ADMIN, session_id, after=cursor) == BadCursor(cursor)


def test_cursor_below_retained_events_is_refused(db: DbVerbs) -> None:
    """Refuse it rather than show nothing."""
    session_id = db.start().session_id
    stored(db, event(session_id), event(session_id))
    number_all(db)
    head = db.do(read_head)
    db.rows("DELETE FROM events WHERE feed_pos <= 3")
    db.rows("UPDATE feed_head SET floor = 3")
    below, at = write_cursor(head.epoch, 2), write_cursor(head.epoch, 3)
    assert db.do(list_events, ADMIN, session_id, after=below) == BadCursor(below)
    assert len(page(db, session_id, after=at).events) == head.position - 3
