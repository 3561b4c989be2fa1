"""Events of sessions on a real database: stored once, in order, whatever they hold; read page by page."""

import json
from typing import Any

import pytest
from psycopg.errors import SerializationFailure
from sqlalchemy import text

from models.core.callers import ADMIN, Caller, Role
from models.core.errors import BadCursor, NotFound, StaleClaim
from models.feed import append as appending
from models.feed.append import AppendResult, EventPage, NewEvent, StoredEvent, append_events, list_events
from models.feed.sequence import read_head, sequence_feed
from models.runs.delete import DeleteSession, delete_sessions
from models.state.cursors import write_cursor
from runtime.postgres import is_retryable
from tests.support.clocks import counts, pass_time
from tests.support.contenders import crowd, steppers
from tests.support.reports import accepted, claimed, history, running
from tests.support.truth import Truth


def event(session_id: str, content: Any = "hello", **values: Any) -> NewEvent:
    frame = json.dumps({"data": {"event_type": "message", "session_id": session_id, "content": content}})
    return NewEvent(session_id, values.pop("caller", ADMIN), "message", values.pop("frame", frame), **values)


def append(truth: Truth, *items: NewEvent) -> list[AppendResult]:
    return truth.do(append_events, items)


def stored(truth: Truth, *items: NewEvent) -> list[int]:
    """The ids of events nobody can object to."""
    results = append(truth, *items)
    assert all(isinstance(result, StoredEvent) for result in results), results
    return [result.id for result in results if isinstance(result, StoredEvent)]


def page(truth: Truth, session_id: str, *, caller: Caller = ADMIN, **values: Any) -> EventPage:
    found = truth.do(list_events, caller, session_id, **values)
    assert isinstance(found, EventPage), found
    return found


def contents(found: EventPage) -> list[Any]:
    return [json.loads(one.data)["content"] for one in found.events]


def number_all(truth: Truth) -> None:
    while truth.do(sequence_feed):
        pass


def test_events_are_stored_in_item_order_and_belong_to_the_active_run(truth: Truth) -> None:
    """What a runner says between start and end of a run is the run's."""
    run = running(truth, caller=Caller(Role.USER, "ann"))
    ids = stored(truth, *[event(run.session_id, number) for number in range(5)])
    assert ids == sorted(ids)
    rows = truth.rows("SELECT run_id, owner, kind, event_type FROM events WHERE id = ANY(:i)", i=ids)
    assert {tuple(row) for row in rows} == {(run.run_id, "ann", "event", "message")}


def test_an_event_without_an_active_run_belongs_to_its_session_only(truth: Truth) -> None:
    """Clients may write to a session at any time."""
    (event_id,) = stored(truth, event(truth.start().session_id))
    assert truth.one("SELECT run_id FROM events WHERE id = :i", i=event_id) is None


def test_an_event_of_an_unknown_session_is_not_found(truth: Truth) -> None:
    """And does not keep the others of its batch from being stored."""
    session_id = truth.start().session_id
    results = append(truth, event("ses_none"), event(session_id))
    assert results[0] == NotFound("session", "ses_none")
    assert isinstance(results[1], StoredEvent)


def test_another_owners_session_is_not_found(truth: Truth) -> None:
    """Neither for writing nor for reading."""
    ann, bob = Caller(Role.USER, "ann"), Caller(Role.USER, "bob")
    session_id = truth.start(caller=ann).session_id
    assert append(truth, event(session_id, caller=bob)) == [NotFound("session", session_id)]
    stored(truth, event(session_id, caller=ann))
    assert truth.do(list_events, bob, session_id) == NotFound("session", session_id)
    assert len(page(truth, session_id, caller=ann).events) == 1


def test_the_same_key_in_a_session_is_stored_once(truth: Truth) -> None:
    """In one batch, in another, and from many at once: always the same id."""
    session_id, other = truth.start().session_id, truth.start().session_id
    first, second = stored(truth, event(session_id, 1, event_key="k"), event(session_id, 2, event_key="k"))
    assert first == second
    assert stored(truth, event(session_id, 3, event_key="k")) == [first]
    assert stored(truth, event(other, 4, event_key="k")) != [first]
    many = crowd(8, lambda number: stored(truth, event(session_id, number, event_key="new")))
    assert len({ids[0] for ids in many}) == 1
    assert contents(page(truth, session_id))[0] == 1


def test_a_batch_that_is_executed_twice_is_executed_once(truth: Truth) -> None:
    """The answer of the first commit was lost."""
    items = [event(truth.start().session_id, number) for number in range(3)]
    assert stored(truth, *items) == stored(truth, *items)
    assert truth.count("events", "kind = 'event'") == 3


def test_a_stored_event_that_goes_before_its_id_is_read_repeats_the_batch(
    truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lock is left that would keep retention away; the second time the event is new."""
    item = event(truth.start().session_id, event_key="k")
    stored(truth, item)
    monkeypatch.setattr(appending, "_IDS", text(appending._IDS.text + " AND false"))
    with pytest.raises(SerializationFailure) as caught:
        append(truth, item)
    assert is_retryable(caught.value)


def test_a_key_of_a_deleted_session_is_free_in_its_successor(truth: Truth) -> None:
    """A reused id is another session: neither its keys nor its events are the old one's."""
    truth.start(session_id="mine")
    old = stored(truth, event("mine", "old", event_key="k"))
    truth.rows("UPDATE runs SET status = 'stopped', completed_at = now(), ready = false")
    truth.rows("UPDATE sessions SET status = 'stopped'")
    truth.do(delete_sessions, [DeleteSession(ADMIN, "mine")])
    assert truth.do(list_events, ADMIN, "mine") == NotFound("session", "mine")
    truth.start(session_id="mine")
    assert stored(truth, event("mine", "new", event_key="k")) != old
    assert contents(page(truth, "mine")) == ["new"]
    number_all(truth)
    assert contents(page(truth, "mine")) == ["new"]


def test_a_stale_token_refuses_its_item_only(truth: Truth) -> None:
    """Whatever carries a token changes nothing with a stale one."""
    run = claimed(truth)
    results = append(
        truth,
        event(run.session_id, claim_token=run.claim_token),
        event(run.session_id, claim_token="stale"),
        event(run.session_id),
    )
    assert [type(result) for result in results] == [StoredEvent, StaleClaim, StoredEvent]
    assert results[1] == StaleClaim(run.run_id, "claimed")


def test_a_token_is_stale_once_its_run_was_given_to_another(truth: Truth) -> None:
    """The former process may still be at work."""
    run = running(truth, max_attempts=2)
    truth.rows("UPDATE runners SET lost_at = now()")
    assert counts(truth) == {"runs taken": 1}
    (result,) = append(truth, event(run.session_id, claim_token=run.claim_token))
    assert isinstance(result, StaleClaim)
    (again,) = truth.claim(truth.runner())
    stored(truth, event(run.session_id, claim_token=again.claim_token))
    assert isinstance(append(truth, event(run.session_id, claim_token=run.claim_token))[0], StaleClaim)


def test_the_last_events_of_an_ended_run_may_come_after_its_end_report(truth: Truth) -> None:
    """They are its own: nobody has claimed it since."""
    run = running(truth)
    accepted(truth, run, "completed")
    (event_id,) = stored(truth, event(run.session_id, claim_token=run.claim_token))
    assert truth.one("SELECT run_id FROM events WHERE id = :i", i=event_id) == run.run_id


def test_an_event_is_a_sign_of_life_of_its_session(truth: Truth) -> None:
    """It is no orphan then."""
    run = running(truth)
    pass_time(truth, "sessions", "last_sign_at", 3600)
    stored(truth, event(run.session_id))
    assert truth.one("SELECT last_sign_at > now() - interval '60 seconds' FROM sessions")


def test_events_of_one_session_do_not_wait_for_each_other(truth: Truth) -> None:
    """Two web processes write to it at the same time."""
    session_id = truth.start().session_id
    pass_time(truth, "sessions", "last_sign_at", 3600)
    with steppers(truth.engine, 2) as (one, other):
        one.do(append_events, [event(session_id, 1)]).result()
        assert other.do(append_events, [event(session_id, 2)]).done()
        other.commit()
        one.commit()
    assert sorted(contents(page(truth, session_id))) == [1, 2]


@pytest.mark.parametrize(
    "inner",
    ['"\\u0000"', '"\\ud800"', '"é\\u20ac"', "1e300", '"' + "x" * 100_000 + '"', '{"a":{"b":[1,2]},"a":3}'],
    ids=["NUL", "surrogate", "unicode", "number", "large", "key twice"],
)
def test_whatever_an_event_holds_comes_back_as_it_was(truth: Truth, inner: str) -> None:
    """json, not jsonb."""
    session_id = truth.start().session_id
    stored(truth, event(session_id, frame='{"data": {"content": ' + inner + "}}"))
    (one,) = page(truth, session_id).events
    assert one.data == '{"content": ' + inner + "}"


def test_a_list_is_in_feed_order_with_what_is_not_numbered_last(truth: Truth) -> None:
    """Only events of the session itself, with the run's own start and end among them."""
    run = running(truth)
    stored(truth, event(run.session_id, 1))
    number_all(truth)
    stored(truth, event(run.session_id, 2), event(run.session_id, 3))
    found = page(truth, run.session_id)
    assert [json.loads(one.data).get("content") for one in found.events] == [None, 1, 2, 3]
    assert history(truth, run.session_id) == ["run_start", "message", "message", "message"]
    assert [one.feed_cursor is None for one in found.events] == [False, False, True, True]
    assert found.next_cursor is None
    assert found.feed_cursor == truth.do(read_head).cursor


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_a_walk_through_pages_sees_every_event_once(truth: Truth, limit: int) -> None:
    """Also when events are written and numbered between two pages."""
    session_id, other = truth.start().session_id, truth.start().session_id
    written = iter(range(100))
    for _ in range(7):
        stored(truth, event(session_id, next(written)), event(other))
    number_all(truth)
    stored(truth, event(session_id, next(written)))
    seen: list[Any] = []
    cursor = None
    while True:
        found = page(truth, session_id, after=cursor, limit=limit)
        seen += contents(found)
        cursor = found.next_cursor
        if cursor is None:
            break
        stored(truth, event(session_id, next(written)))
        if len(seen) < 5:
            number_all(truth)
    assert seen == list(range(len(seen)))
    assert len(seen) == next(written)


def test_a_page_continues_after_any_events_cursor(truth: Truth) -> None:
    """Each numbered event names its place in the feed."""
    session_id = truth.start().session_id
    stored(truth, *[event(session_id, number) for number in range(4)])
    number_all(truth)
    second = page(truth, session_id).events[1]
    assert contents(page(truth, session_id, after=second.feed_cursor)) == [2, 3]


def test_a_page_is_not_larger_than_memory_allows(truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large its events are: at least one, then as many as fit."""
    monkeypatch.setattr("models.feed.append.PAGE_BYTES", 1000)
    session_id = truth.start().session_id
    noise = json.dumps([str(number) for number in range(300)])
    stored(truth, *[event(session_id, f"{number}{noise}") for number in range(3)])
    number_all(truth)
    first = page(truth, session_id, limit=100)
    assert len(first.events) == 1
    assert first.next_cursor == first.events[0].feed_cursor


@pytest.mark.parametrize("cursor", ["", "v1", "v1..1", "v1.x.", "v1.x.-1", "v2.x.1", "v1.x.1x", "nonsense", "v1.x.²"])
def test_a_malformed_cursor_is_refused(truth: Truth, cursor: str) -> None:
    """Never a guess."""
    session_id = truth.start().session_id
    assert truth.do(list_events, ADMIN, session_id, after=cursor) == BadCursor(cursor)


def test_a_cursor_of_another_database_or_ahead_of_this_one_is_refused(truth: Truth) -> None:
    """Its numbers mean something else, or nothing yet."""
    session_id = truth.start().session_id
    _, epoch, position = truth.do(read_head).cursor.split(".")
    for cursor in (f"v1.other.{position}", f"v1.{epoch}.{int(position) + 1}"):
        assert truth.do(list_events, ADMIN, session_id, after=cursor) == BadCursor(cursor)


def test_a_cursor_below_what_is_kept_is_refused(truth: Truth) -> None:
    """What went with retention cannot be told any more, and must not look like nothing."""
    session_id = truth.start().session_id
    stored(truth, event(session_id), event(session_id))
    number_all(truth)
    head = truth.do(read_head)
    truth.rows("DELETE FROM events WHERE feed_pos <= 3")
    truth.rows("UPDATE feed_head SET floor = 3")
    below, at = write_cursor(head.epoch, 2), write_cursor(head.epoch, 3)
    assert truth.do(list_events, ADMIN, session_id, after=below) == BadCursor(below)
    assert len(page(truth, session_id, after=at).events) == head.position - 3
