"""Retention on a real database: what is past its time goes, oldest first; what somebody may need stays."""

import json
from typing import Any

import pytest

from models.callbacks.resume_parents import deliver_results
from models.core.callers import ADMIN, Caller
from models.core.errors import NotFound, ResultNotFound
from models.expiry.cleanup import upkeep
from models.feed import retention
from models.feed.append import EventPage, list_events
from models.feed.pages import read_feed
from models.feed.retention import retire_events
from models.feed.sequence import read_head, sequence_feed
from models.runs.delete import DeleteSession, delete_sessions
from models.runs.results import session_result
from models.state.events_outbox import record_events
from models.state.sessions import read_sessions
from runtime.names import Actor, hint_key
from runtime.settings import Settings
from tests.support.clocks import pass_time
from tests.support.numbering import is_whole, number_all, row
from tests.support.reports import accepted, idle, running
from tests.support.retiring import DAY, DAYS, all_grows_old, finished, forget, grow_old, result, retire
from tests.support.truth import Truth
from workers.retention import retire_due
from workers.room import engine_room


def said(truth: Truth, session_id: str) -> Any:
    return truth.do(session_result, ADMIN, session_id)


# events


def test_events_past_their_time_go_and_the_floor_says_up_to_where(truth: Truth) -> None:
    """The younger ones stay as they were."""
    truth.do(record_events, [row(one) for one in range(10)])
    number_all(truth)
    grow_old(truth, where="feed_pos <= 6")
    assert retire(truth) == 6
    head = truth.do(read_head)
    assert (head.floor, head.position) == (6, 10)
    assert [event.position for event in truth.do(read_feed, 6, limit=100).events] == [7, 8, 9, 10]
    is_whole(truth)


def test_a_prefix_ends_before_the_first_event_that_is_too_young(truth: Truth) -> None:
    """Positions are nearly in the order of time; an old event behind a young one waits for it."""
    truth.do(record_events, [row(one) for one in range(10)])
    number_all(truth)
    grow_old(truth, where="feed_pos <> 4")
    assert retire(truth) == 3
    assert truth.do(read_head).floor == 3
    grow_old(truth, where="feed_pos = 4")
    assert retire(truth) == 7
    assert truth.do(read_head).floor == 10
    is_whole(truth)


def test_an_event_without_a_position_stays_however_old_it_is(truth: Truth) -> None:
    """Nobody has been told of it yet."""
    truth.do(record_events, [row(1), row(2)])
    grow_old(truth)
    assert retire(truth) == 0
    truth.do(sequence_feed)
    assert retire(truth) == 2
    assert truth.do(sequence_feed) == 0
    truth.do(record_events, [row(3)])
    number_all(truth)
    assert truth.do(read_head).position == 3
    is_whole(truth)


def test_one_transaction_takes_few_events_and_few_bytes(truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many wait, and however large they are; one that is larger than that goes alone."""
    truth.do(record_events, [row(one) for one in range(25)])
    number_all(truth)
    grow_old(truth)
    assert truth.do(retire_events, older_than_days=DAYS, most=10) == 10
    monkeypatch.setattr(retention, "MOST_BYTES", 1)
    assert truth.do(retire_events, older_than_days=DAYS, most=10) == 1
    assert truth.do(read_head).floor == 11
    is_whole(truth)


def test_what_a_delete_has_left_out_is_no_end_of_the_prefix(truth: Truth) -> None:
    """Positions of deleted sessions are nowhere; the floor passes them."""
    session_id = truth.start().session_id
    truth.do(record_events, [row(1)])
    truth.do(delete_sessions, [DeleteSession(ADMIN, session_id)])
    number_all(truth)
    truth.do(upkeep)
    grow_old(truth)
    retire(truth)
    head = truth.do(read_head)
    assert head.floor == head.position
    assert truth.count("events") == 0


def test_twice_is_as_good_as_once(truth: Truth) -> None:
    """Actors may run twice or never; the floor never falls."""
    truth.do(record_events, [row(one) for one in range(5)])
    number_all(truth)
    grow_old(truth)
    assert [retire(truth), retire(truth)] == [5, 0]
    assert truth.do(read_head).floor == 5


# results


def test_the_newest_result_of_a_kept_session_outlives_its_events(truth: Truth) -> None:
    """Its timeline is empty by then, and no row of it stands on the feed."""
    session_id = finished(truth)
    result(truth, session_id, "first")
    result(truth, session_id, "last")
    number_all(truth)
    before = said(truth, session_id)
    grow_old(truth)
    retire(truth, most=1)
    assert truth.count("events") == 0
    assert said(truth, session_id) == before == ("last", '{"said":"last"}')
    page = truth.do(list_events, ADMIN, session_id)
    assert isinstance(page, EventPage)
    assert page.events == []
    assert truth.count("kept_results") == 1


def test_a_newer_result_takes_the_place_of_the_kept_one(truth: Truth) -> None:
    """At once, and again when its own time comes."""
    session_id = finished(truth)
    result(truth, session_id, "old")
    number_all(truth)
    grow_old(truth)
    retire(truth)
    result(truth, session_id, "new")
    assert said(truth, session_id)[0] == "new"
    number_all(truth)
    grow_old(truth)
    retire(truth)
    assert said(truth, session_id)[0] == "new"
    assert truth.count("kept_results") == 1


def test_a_result_is_not_kept_for_a_session_that_is_gone(truth: Truth) -> None:
    """Nor does a later session of the same id show it."""
    session_id = finished(truth, session_id="again")
    result(truth, session_id, "of the first")
    number_all(truth)
    grow_old(truth)
    retire(truth)
    truth.do(delete_sessions, [DeleteSession(ADMIN, session_id)])
    finished(truth, session_id="again")
    assert isinstance(said(truth, "again"), ResultNotFound)
    truth.do(upkeep)
    assert truth.count("kept_results") == 0


def test_a_result_that_was_kept_in_the_moment_of_a_delete_goes_with_its_events(truth: Truth) -> None:
    """Retention saw the session, the delete did not see the kept result: upkeep removes it."""
    session_id = finished(truth)
    result(truth, session_id, "late")
    number_all(truth)
    truth.do(delete_sessions, [DeleteSession(ADMIN, session_id)])
    truth.rows(
        "INSERT INTO kept_results SELECT session_id, id, frame FROM events WHERE event_type = 'result' AND session_id = :s",
        s=session_id,
    )
    truth.do(upkeep)
    assert truth.count("kept_results") == 0


# sessions


def test_an_ended_session_goes_when_none_of_its_events_is_left(truth: Truth) -> None:
    """With its runs and its kept result; the feed tells of it, as of a delete."""
    session_id = finished(truth)
    result(truth, session_id, "done")
    all_grows_old(truth)
    assert forget(truth) == 0, "its events are still there"
    retire(truth)
    assert forget(truth) == 1
    assert [truth.count(table) for table in ("sessions", "runs", "kept_results", "deleted_sessions")] == [0, 0, 0, 0]
    assert truth.told_kinds(session_id) == ["session_deleted"]
    assert truth.one("SELECT CAST(frame AS text) FROM events") == json.dumps(
        {"session_id": session_id, "runs_deleted": 1}, separators=(",", ":")
    )
    assert isinstance(said(truth, session_id), NotFound)
    is_whole(truth)


def test_a_session_of_an_owner_goes_with_its_owners_name(truth: Truth) -> None:
    """Else the owner's own list would keep it for ever."""
    finished(truth, caller=Caller(owner="alice"))
    all_grows_old(truth)
    retire(truth)
    assert forget(truth) == 1
    assert truth.one("SELECT owner FROM events") == "alice"


def test_what_is_alive_or_waits_is_kept(truth: Truth) -> None:
    """Idle, running, pending, delayed, or resumed: however long ago it was."""
    idle(truth)
    running(truth)
    truth.start(delay_seconds=DAY)
    truth.resume(finished(truth))
    all_grows_old(truth)
    retire(truth)
    assert truth.count("events") == 0
    assert forget(truth) == 0
    assert truth.count("sessions") == 4


def test_a_session_is_kept_for_its_days_since_its_last_change(truth: Truth) -> None:
    """Not since it began."""
    session_id = finished(truth)
    all_grows_old(truth)
    retire(truth)
    pass_time(truth, "runs", "completed_at", -20 * DAY)
    assert forget(truth) == 0
    assert forget(truth, days=10) == 1
    assert read_none(truth, session_id)


def read_none(truth: Truth, session_id: str) -> bool:
    return truth.do(read_sessions, [session_id]) == {}


def test_children_of_a_session_that_goes_become_roots(truth: Truth) -> None:
    """As when it is deleted; the feed shows them so."""
    parent = finished(truth)
    child = finished(truth, parent_session_id=parent)
    all_grows_old(truth)
    retire(truth)
    pass_time(truth, "runs", "completed_at", -20 * DAY, "session_id = :s", s=child)
    assert forget(truth) == 1
    assert truth.session(child).parent_session_id is None
    assert truth.told_kinds(child) == ["session_updated"]


def test_a_parent_waits_for_its_children(truth: Truth) -> None:
    """It is to hear of their end."""
    parent = finished(truth)
    child = running(truth, parent_session_id=parent, execution_mode="async_callback")
    all_grows_old(truth)
    retire(truth)
    assert forget(truth) == 0
    accepted(truth, child, "completed")
    assert len(truth.do(deliver_results).runs) == 1


def test_a_family_goes_together(truth: Truth) -> None:
    """Nobody is told of a child that becomes a root and goes in the same moment."""
    parent = finished(truth)
    finished(truth, parent_session_id=finished(truth, parent_session_id=parent))
    all_grows_old(truth)
    retire(truth)
    assert forget(truth) == 3
    assert {one.kind for one in truth.rows("SELECT kind FROM events")} == {"session_deleted"}


def test_a_walk_passes_sessions_that_are_kept(truth: Truth) -> None:
    """In steps, each behind the last: many that are kept hide none that goes."""
    kept = [idle(truth).session_id for _ in range(5)]
    gone = [finished(truth) for _ in range(5)]
    all_grows_old(truth)
    retire(truth)
    assert forget(truth, most=2) == 5
    assert {one.session_id for one in truth.rows("SELECT session_id FROM sessions")} == set(kept)
    assert all(read_none(truth, session_id) for session_id in gone)


# the duty


@pytest.mark.parametrize("days", [None, 60.0])
def test_the_duty_drops_what_the_settings_say(truth: Truth, settings: Settings, days: float | None) -> None:
    """Sessions only if somebody said for how long they are kept."""
    finished(truth)
    all_grows_old(truth, 61)
    with engine_room(settings.model_copy(update={"retention_days": days}), threads=1) as room:
        assert retire_due(room, 0)
        assert not retire_due(room, 60), "it was done a moment ago"
        assert bool(room.redis.exists(hint_key(Actor.BROADCAST))) == (days is not None)
    assert truth.count("events", "kind <> 'session_deleted'") == 0
    assert truth.count("sessions") == (1 if days is None else 0)


def test_events_are_kept_for_as_long_as_the_settings_say(truth: Truth, settings: Settings) -> None:
    """Sessions for as long as their events, though they were to go earlier."""
    finished(truth)
    all_grows_old(truth, 61)
    with engine_room(
        settings.model_copy(update={"retention_days": 1.0, "event_retention_days": 90.0}), threads=1
    ) as room:
        retire_due(room, 0)
    assert truth.do(read_head).floor == 0
    assert truth.count("sessions") == 1
