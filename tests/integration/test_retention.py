"""Retention on a real database: expired history goes, oldest first; anything still needed stays."""

import json
from typing import Any

import pytest

from models.callbacks.resume_parents import deliver_results
from models.core.callers import ADMIN, Caller
from models.core.errors import NotFound, ResultNotFound
from models.expiry.cleanup import upkeep
from models.feed import retention
from models.feed.pages import read_feed
from models.feed.retention import retire_events
from models.feed.sequence import read_head, sequence_feed
from models.feed.timeline import EventPage, list_events
from models.runs.delete import DeleteSession, delete_sessions
from models.runs.results import session_result
from models.state.events_outbox import record_events
from models.state.sessions import read_sessions
from runtime.names import Actor, hint_key
from runtime.settings import Settings
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.clocks import pass_time
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import assert_dense, number_all, row
from tests.support.reports import accepted, finished, idle, running
from tests.support.retention import DAY, DAYS, all_grows_old, grow_old, remove_old_sessions, result, retire
from workers.context import worker_context
from workers.retention import retire_due


def said(db: DbVerbs, session_id: str) -> Any:
    return db.do(session_result, ADMIN, session_id)


# Events.


def test_expired_events_go_and_oldest_position_is_recorded(db: DbVerbs) -> None:
    """Leave younger ones as they were."""
    db.do(record_events, [row(number) for number in range(10)])
    number_all(db)
    grow_old(db, where="feed_pos <= 6")
    assert retire(db) == 6
    head = db.do(read_head)
    assert (head.floor, head.position) == (6, 10)
    assert [event.position for event in db.do(read_feed, 6, limit=100).events] == [7, 8, 9, 10]
    assert_dense(db)


def test_prefix_ends_before_first_event_that_is_too_young(db: DbVerbs) -> None:
    """Keep an old event behind a young one, since positions are only nearly in the order of time."""
    db.do(record_events, [row(number) for number in range(10)])
    number_all(db)
    grow_old(db, where="feed_pos <> 4")
    assert retire(db) == 3
    assert db.do(read_head).floor == 3
    grow_old(db, where="feed_pos = 4")
    assert retire(db) == 7
    assert db.do(read_head).floor == 10
    assert_dense(db)


def test_unnumbered_event_stays_however_old(db: DbVerbs) -> None:
    """Keep it, since no reader of the feed has seen it."""
    db.do(record_events, [row(1), row(2)])
    grow_old(db)
    assert retire(db) == 0
    db.do(sequence_feed)
    assert retire(db) == 2
    assert db.do(sequence_feed) == 0
    db.do(record_events, [row(3)])
    number_all(db)
    assert db.do(read_head).position == 3
    assert_dense(db)


def test_transaction_is_bounded_in_events_and_bytes(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the rest to the next one; a larger event goes alone."""
    db.do(record_events, [row(number) for number in range(25)])
    number_all(db)
    grow_old(db)
    assert db.do(retire_events, older_than_days=DAYS, most=10) == 10
    monkeypatch.setattr(retention, "MOST_BYTES", 1)
    assert db.do(retire_events, older_than_days=DAYS, most=10) == 1
    assert db.do(read_head).floor == 11
    assert_dense(db)


def test_deleted_positions_do_not_end_prefix(db: DbVerbs) -> None:
    """Pass the positions of deleted sessions."""
    session_id = db.start().session_id
    db.do(record_events, [row(1)])
    db.do(delete_sessions, [DeleteSession(ADMIN, session_id)])
    number_all(db)
    db.do(upkeep)
    grow_old(db)
    retire(db)
    head = db.do(read_head)
    assert head.floor == head.position
    assert db.count(RECORDED_EVENTS) == 0


def test_retention_run_twice_never_lowers_oldest_position(db: DbVerbs) -> None:
    db.do(record_events, [row(number) for number in range(5)])
    number_all(db)
    grow_old(db)
    assert [retire(db), retire(db)] == [5, 0]
    assert db.do(read_head).floor == 5


# Results.


def test_newest_result_of_kept_session_outlives_its_events(db: DbVerbs) -> None:
    session_id = finished(db)
    result(db, session_id, "first")
    result(db, session_id, "last")
    number_all(db)
    before = said(db, session_id)
    grow_old(db)
    retire(db, most=1)
    assert db.count(RECORDED_EVENTS) == 0
    assert said(db, session_id) == before == ("last", '{"said":"last"}')
    page = db.do(list_events, ADMIN, session_id)
    assert isinstance(page, EventPage)
    assert page.events == []
    assert db.count("kept_results") == 1


def test_newer_result_replaces_kept_one(db: DbVerbs) -> None:
    """Replace it at once, and again when its own time comes."""
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


def test_no_result_is_kept_for_deleted_session(db: DbVerbs) -> None:
    """Show it on no later session of the same id either."""
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


def test_result_kept_during_delete_goes_with_events(db: DbVerbs) -> None:
    """Keep the result after the delete has looked: upkeep removes it."""
    session_id = finished(db)
    result(db, session_id, "late")
    number_all(db)
    db.do(delete_sessions, [DeleteSession(ADMIN, session_id)])
    db.rows(
        f"INSERT INTO kept_results SELECT session_id, id, frame FROM {RECORDED_EVENTS} WHERE event_type = 'result' AND session_id = :s",
        s=session_id,
    )
    db.do(upkeep)
    assert db.count("kept_results") == 0


# Sessions.


def test_ended_session_goes_with_its_last_event(db: DbVerbs) -> None:
    """Remove its runs and its kept result; write the same event as a delete."""
    session_id = finished(db)
    result(db, session_id, "done")
    all_grows_old(db)
    assert remove_old_sessions(db) == 0, "its events are still there"
    retire(db)
    assert remove_old_sessions(db) == 1
    assert [db.count(table) for table in ("sessions", "runs", "kept_results", "deleted_sessions")] == [0, 0, 0, 0]
    assert db.told_kinds(session_id) == ["session_deleted"]
    assert db.one(f"SELECT CAST(frame AS text) FROM {RECORDED_EVENTS}") == json.dumps(
        {"session_id": session_id, "runs_deleted": 1}, separators=(",", ":")
    )
    assert isinstance(said(db, session_id), NotFound)
    assert_dense(db)


def test_event_of_removed_session_names_its_owner(db: DbVerbs) -> None:
    """Keep the owner: otherwise the owner's own list would keep the session forever."""
    finished(db, caller=Caller(owner="alice"))
    all_grows_old(db)
    retire(db)
    assert remove_old_sessions(db) == 1
    assert db.one(f"SELECT owner FROM {RECORDED_EVENTS}") == "alice"


def test_sessions_alive_or_with_pending_runs_are_kept(db: DbVerbs) -> None:
    """Try idle, running, pending, delayed and resumed sessions of any age."""
    idle(db)
    running(db)
    db.start(delay_seconds=DAY)
    db.resume(finished(db))
    all_grows_old(db)
    retire(db)
    assert db.count(RECORDED_EVENTS) == 0
    assert remove_old_sessions(db) == 0
    assert db.count("sessions") == 4


def test_session_age_counts_from_its_last_change(db: DbVerbs) -> None:
    session_id = finished(db)
    all_grows_old(db)
    retire(db)
    pass_time(db, "runs", "completed_at", -20 * DAY)
    assert remove_old_sessions(db) == 0
    assert remove_old_sessions(db, days=10) == 1
    assert read_none(db, session_id)


def read_none(db: DbVerbs, session_id: str) -> bool:
    return db.do(read_sessions, [session_id]) == {}


def test_children_of_removed_session_become_roots(db: DbVerbs) -> None:
    """Write events for them, as for a delete."""
    parent = finished(db)
    child = finished(db, parent_session_id=parent)
    all_grows_old(db)
    retire(db)
    pass_time(db, "runs", "completed_at", -20 * DAY, "session_id = :s", s=child)
    assert remove_old_sessions(db) == 1
    assert db.session(child).parent_session_id is None
    assert db.told_kinds(child) == ["session_updated"]


def test_parent_waits_for_its_children(db: DbVerbs) -> None:
    """Keep it until it gets their results."""
    parent = finished(db)
    child = running(db, parent_session_id=parent, execution_mode="async_callback")
    all_grows_old(db)
    retire(db)
    assert remove_old_sessions(db) == 0
    accepted(db, child, "completed")
    assert len(db.do(deliver_results).runs) == 1


def test_family_goes_together_without_reparenting_events(db: DbVerbs) -> None:
    parent = finished(db)
    finished(db, parent_session_id=finished(db, parent_session_id=parent))
    all_grows_old(db)
    retire(db)
    assert remove_old_sessions(db) == 3
    assert {event.kind for event in db.rows(f"SELECT kind FROM {RECORDED_EVENTS}")} == {"session_deleted"}


def test_walk_passes_sessions_that_are_kept(db: DbVerbs) -> None:
    """Go on behind the last one, so that many kept sessions hide none that goes."""
    kept = [idle(db).session_id for _ in range(5)]
    gone = [finished(db) for _ in range(5)]
    all_grows_old(db)
    retire(db)
    assert remove_old_sessions(db, most=2) == 5
    assert {session.session_id for session in db.rows("SELECT session_id FROM sessions")} == set(kept)
    assert all(read_none(db, session_id) for session_id in gone)


# Actor.


@pytest.mark.parametrize("days", [None, 60.0])
def test_retention_actor_applies_settings(db: DbVerbs, settings: Settings, days: float | None) -> None:
    """Remove sessions only if the settings name an age."""
    finished(db)
    all_grows_old(db, 61)
    with worker_context(settings.model_copy(update={"retention_days": days}), threads=1) as context:
        assert retire_due(context, 0)
        assert not retire_due(context, 60), "it was done a moment ago"
        assert bool(context.redis.exists(hint_key(Actor.BROADCAST))) == (days is not None)
    assert db.count(RECORDED_EVENTS, "kind <> 'session_deleted'") == 0
    assert db.count("sessions") == (1 if days is None else 0)


def test_events_are_kept_for_their_configured_time(db: DbVerbs, settings: Settings) -> None:
    """Keep sessions as long as their events, even if theirs is shorter."""
    finished(db)
    all_grows_old(db, 61)
    with worker_context(
        settings.model_copy(update={"retention_days": 1.0, "event_retention_days": 90.0}), threads=1
    ) as context:
        retire_due(context, 0)
    assert db.do(read_head).floor == 0
    assert db.count("sessions") == 1
