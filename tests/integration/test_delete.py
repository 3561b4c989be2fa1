"""Deleting sessions, and reading their results, on a real database."""

import json
from typing import Any

import pytest

from models.core.callers import ADMIN, Caller, Role
from models.core.errors import CoordinatorError, NotFound, ResultNotFound, SessionNotFinished, StopSessionFirst
from models.core.ids import uuid7
from models.feed.sequence import sequence_feed
from models.runs.delete import Deleted, DeleteSession, delete_sessions, purge_deleted
from models.runs.results import session_result, session_status
from models.state.events_outbox import EventRow, record_events
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.db_verbs import DbVerbs
from tests.support.reports import accepted, claimed, idle, report, running, say, stop


def delete(db: DbVerbs, session_id: str, caller: Caller = ADMIN) -> Deleted | CoordinatorError:
    (result,) = db.do(delete_sessions, [DeleteSession(caller, session_id)])
    return result


def finished(db: DbVerbs, **values: Any) -> str:
    run = running(db, **values)
    accepted(db, run, "completed")
    return run.session_id


def write_result(db: DbVerbs, session_id: str, frame: dict[str, Any]) -> None:
    row = EventRow("event", session_id, json.dumps({"data": frame}), event_type="result", event_uid=uuid7())
    db.do(record_events, [row])


def number_all(db: DbVerbs) -> None:
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while sequence_feed(connection):
            pass


def test_finished_session_is_deleted_with_its_runs(db: DbVerbs) -> None:
    """Count its events, write the event of the feed, and answer a late report with not found."""
    run = running(db)
    accepted(db, run, "completed")
    db.resume(run.session_id)
    assert delete(db, run.session_id) == Deleted(run.session_id, events_count=2, runs_count=2)
    assert (db.count("sessions"), db.count("runs")) == (0, 0)
    (told,) = db.rows(f"SELECT frame FROM {RECORDED_EVENTS} WHERE kind = 'session_deleted'")
    assert told.frame == {"session_id": run.session_id, "runs_deleted": 2}
    assert say(db, report(run, "completed")) == [NotFound("run", run.run_id)]
    assert delete(db, run.session_id) == NotFound("session", run.session_id)


@pytest.mark.parametrize("begin", [claimed, running, idle])
def test_session_with_live_process_must_be_stopped_first(db: DbVerbs, begin: Any) -> None:
    """Refuse while it is claimed, running, idle or stopping."""
    run = begin(db)
    for _ in ("as it is", "stopping"):
        assert delete(db, run.session_id) == StopSessionFirst(run.session_id)
        stop(db, run.session_id)
    say(db, report(run, "stopped"))
    assert isinstance(delete(db, run.session_id), Deleted)


def test_undelivered_claim_counts_as_alive(db: DbVerbs) -> None:
    """Refuse, since it may be on its way to a runner."""
    db.park(db.runner())
    session_id = db.start().session_id
    db.dispatch()
    assert delete(db, session_id) == StopSessionFirst(session_id)


@pytest.mark.parametrize("outcome", ["completed", "failed", "stopped", None])
def test_every_other_session_can_be_deleted(db: DbVerbs, outcome: str | None) -> None:
    if outcome is None:
        session_id = db.start().session_id
    else:
        run = running(db)
        accepted(db, run, outcome)
        session_id = run.session_id
    assert isinstance(delete(db, session_id), Deleted)


def test_children_of_deleted_session_become_roots(db: DbVerbs) -> None:
    """Write events for them."""
    parent = finished(db)
    child = db.start(parent_session_id=parent).session_id
    grandchild = db.start(parent_session_id=child).session_id
    assert isinstance(delete(db, parent), Deleted)
    assert db.session(child).parent_session_id is None
    assert db.session(grandchild).parent_session_id == child
    (told,) = db.rows(
        f"SELECT frame FROM {RECORDED_EVENTS} WHERE kind = 'session_updated' AND session_id = :s", s=child
    )
    assert told.frame["session"]["parent_session_id"] is None


def test_parent_and_child_are_deleted_in_one_batch(db: DbVerbs) -> None:
    """Answer each item in order; the same one twice is not found the second time."""
    parent = finished(db)
    busy = running(db).session_id
    child = db.start(parent_session_id=parent).session_id
    batch = [DeleteSession(ADMIN, session_id) for session_id in (child, busy, parent, child, "ses_unknown")]
    results = db.do(delete_sessions, batch)
    assert [type(result) for result in results] == [Deleted, StopSessionFirst, Deleted, NotFound, NotFound]
    again = db.do(delete_sessions, batch)
    assert again == results


def test_repeated_delete_repeats_answer_and_spares_new_session(db: DbVerbs) -> None:
    """Reuse the id before the lost answer is asked for again."""
    session_id = finished(db)
    item = DeleteSession(ADMIN, session_id)
    first = db.do(delete_sessions, [item])
    db.start(session_id=session_id)
    assert db.do(delete_sessions, [item]) == first
    assert db.session(session_id).status == "pending"


def test_session_of_another_owner_is_not_found(db: DbVerbs) -> None:
    alice, bob = Caller(Role.USER, "alice"), Caller(Role.USER, "bob")
    session_id = db.start(caller=alice).session_id
    assert delete(db, session_id, bob) == NotFound("session", session_id)
    assert isinstance(delete(db, session_id, alice), Deleted)


def test_numbered_events_of_deleted_session_go_in_batches(db: DbVerbs) -> None:
    """Keep its end on the feed, leave unnumbered events for later, and those of other sessions alone."""
    kept = finished(db)
    session_id = finished(db)
    number_all(db)
    delete(db, session_id)
    total = db.count(RECORDED_EVENTS, "session_id = :s", s=session_id)
    assert db.do(purge_deleted, 3) == 3
    assert db.count(RECORDED_EVENTS, "session_id = :s", s=session_id) == total - 3
    while db.do(purge_deleted, 3):
        pass
    assert db.told_kinds(session_id) == ["session_deleted"]
    assert db.count(RECORDED_EVENTS, "session_id = :s", s=kept) > 3


def test_unnumbered_event_is_not_purged(db: DbVerbs) -> None:
    """Keep it, since purging it would leave a hole in the positions."""
    session_id = finished(db)
    delete(db, session_id)
    total = db.count(RECORDED_EVENTS)
    assert db.do(purge_deleted, 100) == 0
    number_all(db)
    assert db.one("SELECT last_pos FROM feed_head") == total
    assert db.do(purge_deleted, 100) == total - db.told_kinds(session_id).count("session_deleted")


def test_events_of_later_session_with_same_id_stay(db: DbVerbs) -> None:
    """Keep events younger than the delete."""
    session_id = finished(db, session_id="again")
    delete(db, session_id)
    finished(db, session_id="again")
    number_all(db)
    db.do(purge_deleted, 100)
    assert db.told_kinds(session_id)[:2] == ["session_deleted", "session_created"]
    assert db.count(RECORDED_EVENTS, "kind = 'event' AND session_id = 'again'") == 2


def test_purged_delete_is_forgotten_after_retention_time(db: DbVerbs) -> None:
    """Keep it until its events are gone."""
    session_id = finished(db)
    delete(db, session_id)
    db.rows("UPDATE deleted_sessions SET deleted_at = now() - interval '2 minutes'")
    db.do(purge_deleted, 100)
    assert db.count("deleted_sessions") == 1
    number_all(db)
    db.do(purge_deleted, 100)
    assert db.count("deleted_sessions") == 0


def test_newest_result_is_read_when_session_is_done(db: DbVerbs) -> None:
    """Read text and data as written, of a finished or idle session."""
    run = running(db)
    assert db.do(session_result, ADMIN, run.session_id) == SessionNotFinished(run.session_id, "running")
    accepted(db, run, "completed", session_status="idle")
    assert db.do(session_result, ADMIN, run.session_id) == ResultNotFound(run.session_id)
    write_result(db, run.session_id, {"result_text": "old", "result_data": None})
    write_result(db, run.session_id, {"result_text": "a\0\ud800", "result_data": {"n": [1, 2.5, 10**30]}})
    assert db.do(session_result, ADMIN, run.session_id) == (
        "a\0\ud800",
        '{"n":[1,2.5,1000000000000000000000000000000]}',
    )
    write_result(db, run.session_id, {"result_text": None, "result_data": None})
    assert db.do(session_result, ADMIN, run.session_id) == (None, None)


def test_result_of_former_session_of_same_id_is_not_shown(db: DbVerbs) -> None:
    """Look before it is purged."""
    finished(db, session_id="again")
    write_result(db, "again", {"result_text": "old"})
    delete(db, "again")
    finished(db, session_id="again")
    assert db.do(session_result, ADMIN, "again") == ResultNotFound("again")
    assert delete(db, "again") == Deleted("again", events_count=2, runs_count=1)


def test_status_of_missing_session_is_not_existent(db: DbVerbs) -> None:
    """Answer the same for a session of another owner."""
    session_id = db.start(caller=Caller(Role.USER, "alice")).session_id
    assert db.do(session_status, ADMIN, session_id) == "pending"
    assert db.do(session_status, Caller(Role.USER, "bob"), session_id) == "not_existent"
    assert db.do(session_status, ADMIN, "ses_unknown") == "not_existent"
    assert db.do(session_result, ADMIN, "ses_unknown") == NotFound("session", "ses_unknown")
