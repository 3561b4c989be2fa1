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
from tests.support.db_verbs import DbVerbs
from tests.support.numbering_scenarios import is_whole, number_all, row
from tests.support.reports import accepted, idle, running
from tests.support.retention import DAY, DAYS, all_grows_old, finished, forget, grow_old, result, retire
from workers.context import worker_context
from workers.retention import retire_due


def said(db: DbVerbs, session_id: str) -> Any:
    return db.do(session_result, ADMIN, session_id)


# events


def test_events_past_their_time_go_and_the_floor_says_up_to_where(db: DbVerbs) -> None:
    """The younger ones stay as they were."""
    db.do(record_events, [row(one) for one in range(10)])
    number_all(db)
    grow_old(db, where="feed_pos <= 6")
    assert retire(db) == 6
    head = db.do(read_head)
    assert (head.floor, head.position) == (6, 10)
    assert [event.position for event in db.do(read_feed, 6, limit=100).events] == [7, 8, 9, 10]
    is_whole(db)


def test_a_prefix_ends_before_the_first_event_that_is_too_young(db: DbVerbs) -> None:
    """Positions are nearly in the order of time; an old event behind a young one waits for it."""
    db.do(record_events, [row(one) for one in range(10)])
    number_all(db)
    grow_old(db, where="feed_pos <> 4")
    assert retire(db) == 3
    assert db.do(read_head).floor == 3
    grow_old(db, where="feed_pos = 4")
    assert retire(db) == 7
    assert db.do(read_head).floor == 10
    is_whole(db)


def test_an_event_without_a_position_stays_however_old_it_is(db: DbVerbs) -> None:
    """Nobody has been told of it yet."""
    db.do(record_events, [row(1), row(2)])
    grow_old(db)
    assert retire(db) == 0
    db.do(sequence_feed)
    assert retire(db) == 2
    assert db.do(sequence_feed) == 0
    db.do(record_events, [row(3)])
    number_all(db)
    assert db.do(read_head).position == 3
    is_whole(db)


def test_one_transaction_takes_few_events_and_few_bytes(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many wait, and however large they are; one that is larger than that goes alone."""
    db.do(record_events, [row(one) for one in range(25)])
    number_all(db)
    grow_old(db)
    assert db.do(retire_events, older_than_days=DAYS, most=10) == 10
    monkeypatch.setattr(retention, "MOST_BYTES", 1)
    assert db.do(retire_events, older_than_days=DAYS, most=10) == 1
    assert db.do(read_head).floor == 11
    is_whole(db)


def test_what_a_delete_has_left_out_is_no_end_of_the_prefix(db: DbVerbs) -> None:
    """Positions of deleted sessions are nowhere; the floor passes them."""
    session_id = db.start().session_id
    db.do(record_events, [row(1)])
    db.do(delete_sessions, [DeleteSession(ADMIN, session_id)])
    number_all(db)
    db.do(upkeep)
    grow_old(db)
    retire(db)
    head = db.do(read_head)
    assert head.floor == head.position
    assert db.count("events") == 0


def test_twice_is_as_good_as_once(db: DbVerbs) -> None:
    """Actors may run twice or never; the floor never falls."""
    db.do(record_events, [row(one) for one in range(5)])
    number_all(db)
    grow_old(db)
    assert [retire(db), retire(db)] == [5, 0]
    assert db.do(read_head).floor == 5


# results


def test_the_newest_result_of_a_kept_session_outlives_its_events(db: DbVerbs) -> None:
    """Its timeline is empty by then, and no row of it stands on the feed."""
    session_id = finished(db)
    result(db, session_id, "first")
    result(db, session_id, "last")
    number_all(db)
    before = said(db, session_id)
    grow_old(db)
    retire(db, most=1)
    assert db.count("events") == 0
    assert said(db, session_id) == before == ("last", '{"said":"last"}')
    page = db.do(list_events, ADMIN, session_id)
    assert isinstance(page, EventPage)
    assert page.events == []
    assert db.count("kept_results") == 1


def test_a_newer_result_takes_the_place_of_the_kept_one(db: DbVerbs) -> None:
    """At once, and again when its own time comes."""
    session_id = finished(db)
    result(db, session_id, "old")
    number_all(db)
    grow_old(db)
    retire(db)
    result(db, session_id, "new")
    assert said(db, session_id)[0] == "new"
    number_all(db)
    grow_old(db)
    retire(db)
    assert said(db, session_id)[0] == "new"
    assert db.count("kept_results") == 1


def test_a_result_is_not_kept_for_a_session_that_is_gone(db: DbVerbs) -> None:
    """Nor does a later session of the same id show it."""
    session_id = finished(db, session_id="again")
    result(db, session_id, "of the first")
    number_all(db)
    grow_old(db)
    retire(db)
    db.do(delete_sessions, [DeleteSession(ADMIN, session_id)])
    finished(db, session_id="again")
    assert isinstance(said(db, "again"), ResultNotFound)
    db.do(upkeep)
    assert db.count("kept_results") == 0


def test_a_result_that_was_kept_in_the_moment_of_a_delete_goes_with_its_events(db: DbVerbs) -> None:
    """Retention saw the session, the delete did not see the kept result: upkeep removes it."""
    session_id = finished(db)
    result(db, session_id, "late")
    number_all(db)
    db.do(delete_sessions, [DeleteSession(ADMIN, session_id)])
    db.rows(
        "INSERT INTO kept_results SELECT session_id, id, frame FROM events WHERE event_type = 'result' AND session_id = :s",
        s=session_id,
    )
    db.do(upkeep)
    assert db.count("kept_results") == 0


# sessions


def test_an_ended_session_goes_when_none_of_its_events_is_left(db: DbVerbs) -> None:
    """With its runs and its kept result; the feed tells of it, as of a delete."""
    session_id = finished(db)
    result(db, session_id, "done")
    all_grows_old(db)
    assert forget(db) == 0, "its events are still there"
    retire(db)
    assert forget(db) == 1
    assert [db.count(table) for table in ("sessions", "runs", "kept_results", "deleted_sessions")] == [0, 0, 0, 0]
    assert db.told_kinds(session_id) == ["session_deleted"]
    assert db.one("SELECT CAST(frame AS text) FROM events") == json.dumps(
        {"session_id": session_id, "runs_deleted": 1}, separators=(",", ":")
    )
    assert isinstance(said(db, session_id), NotFound)
    is_whole(db)


def test_a_session_of_an_owner_goes_with_its_owners_name(db: DbVerbs) -> None:
    """Else the owner's own list would keep it for ever."""
    finished(db, caller=Caller(owner="alice"))
    all_grows_old(db)
    retire(db)
    assert forget(db) == 1
    assert db.one("SELECT owner FROM events") == "alice"


def test_what_is_alive_or_waits_is_kept(db: DbVerbs) -> None:
    """Idle, running, pending, delayed, or resumed: however long ago it was."""
    idle(db)
    running(db)
    db.start(delay_seconds=DAY)
    db.resume(finished(db))
    all_grows_old(db)
    retire(db)
    assert db.count("events") == 0
    assert forget(db) == 0
    assert db.count("sessions") == 4


def test_a_session_is_kept_for_its_days_since_its_last_change(db: DbVerbs) -> None:
    """Not since it began."""
    session_id = finished(db)
    all_grows_old(db)
    retire(db)
    pass_time(db, "runs", "completed_at", -20 * DAY)
    assert forget(db) == 0
    assert forget(db, days=10) == 1
    assert read_none(db, session_id)


def read_none(db: DbVerbs, session_id: str) -> bool:
    return db.do(read_sessions, [session_id]) == {}


def test_children_of_a_session_that_goes_become_roots(db: DbVerbs) -> None:
    """As when it is deleted; the feed shows them so."""
    parent = finished(db)
    child = finished(db, parent_session_id=parent)
    all_grows_old(db)
    retire(db)
    pass_time(db, "runs", "completed_at", -20 * DAY, "session_id = :s", s=child)
    assert forget(db) == 1
    assert db.session(child).parent_session_id is None
    assert db.told_kinds(child) == ["session_updated"]


def test_a_parent_waits_for_its_children(db: DbVerbs) -> None:
    """It is to hear of their end."""
    parent = finished(db)
    child = running(db, parent_session_id=parent, execution_mode="async_callback")
    all_grows_old(db)
    retire(db)
    assert forget(db) == 0
    accepted(db, child, "completed")
    assert len(db.do(deliver_results).runs) == 1


def test_a_family_goes_together(db: DbVerbs) -> None:
    """Nobody is told of a child that becomes a root and goes in the same moment."""
    parent = finished(db)
    finished(db, parent_session_id=finished(db, parent_session_id=parent))
    all_grows_old(db)
    retire(db)
    assert forget(db) == 3
    assert {one.kind for one in db.rows("SELECT kind FROM events")} == {"session_deleted"}


def test_a_walk_passes_sessions_that_are_kept(db: DbVerbs) -> None:
    """In steps, each behind the last: many that are kept hide none that goes."""
    kept = [idle(db).session_id for _ in range(5)]
    gone = [finished(db) for _ in range(5)]
    all_grows_old(db)
    retire(db)
    assert forget(db, most=2) == 5
    assert {one.session_id for one in db.rows("SELECT session_id FROM sessions")} == set(kept)
    assert all(read_none(db, session_id) for session_id in gone)


# the duty


@pytest.mark.parametrize("days", [None, 60.0])
def test_the_duty_drops_what_the_settings_say(db: DbVerbs, settings: Settings, days: float | None) -> None:
    """Sessions only if somebody said for how long they are kept."""
    finished(db)
    all_grows_old(db, 61)
    with worker_context(settings.model_copy(update={"retention_days": days}), threads=1) as context:
        assert retire_due(context, 0)
        assert not retire_due(context, 60), "it was done a moment ago"
        assert bool(context.redis.exists(hint_key(Actor.BROADCAST))) == (days is not None)
    assert db.count("events", "kind <> 'session_deleted'") == 0
    assert db.count("sessions") == (1 if days is None else 0)


def test_events_are_kept_for_as_long_as_the_settings_say(db: DbVerbs, settings: Settings) -> None:
    """Sessions for as long as their events, though they were to go earlier."""
    finished(db)
    all_grows_old(db, 61)
    with worker_context(
        settings.model_copy(update={"retention_days": 1.0, "event_retention_days": 90.0}), threads=1
    ) as context:
        retire_due(context, 0)
    assert db.do(read_head).floor == 0
    assert db.count("sessions") == 1
