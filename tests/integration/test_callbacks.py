"""Callbacks: deliver each end of a child to its parent once, and together while the parent is busy."""

import pytest

from models.core.callers import ADMIN, Caller, Role
from models.core.limits import Limits
from models.expiry.cleanup import upkeep
from models.runs.delete import Deleted, DeleteSession, delete_sessions
from testkit.recorded_events import RECORDED_EVENTS
from tests.support import clocks
from tests.support.db_verbs import DbVerbs
from tests.support.matching import no_match_due
from tests.support.parents import (
    child_of,
    deliver,
    end_turn,
    ended_child,
    heard_of,
    last_run,
    prompts,
    waiting,
    write_result,
)
from tests.support.reports import accepted, claimed, finished, idle, running, stop, stop_run


def test_idle_parent_is_resumed_with_its_affinity(db: DbVerbs) -> None:
    parent = idle(db).session_id
    db.rows("UPDATE sessions SET hostname = 'here', executor_profile = 'mine' WHERE session_id = :s", s=parent)
    child = ended_child(db, parent, "done")
    deliver(db)
    run = last_run(db, parent)
    assert (run.demands["hostname"], run.demands["executor_profile"]) == ("here", "mine")
    assert heard_of(db, parent) == [child.session_id]


@pytest.mark.parametrize("mode", ["sync", "async_poll"])
def test_sync_and_async_poll_children_call_no_parent(db: DbVerbs, mode: str) -> None:
    parent = finished(db)
    ended_child(db, parent, execution_mode=mode)
    assert db.count("child_results") == 0


def test_requeued_run_calls_no_parent(db: DbVerbs) -> None:
    """Deliver the end of the last attempt only."""
    parent = finished(db)
    runner = db.runner()
    child_of(db, parent, runner, max_attempts=2)
    clocks.fall_silent(db, runner, 999)
    clocks.tick(db)
    assert db.count("child_results") == 0


def test_results_for_busy_parent_go_together_in_order_of_ends_after_its_run(db: DbVerbs) -> None:
    parent = running(db)
    children = [child_of(db, parent.session_id) for _ in range(3)]
    for child in reversed(children):
        write_result(db, child, result_text=f"of {child.session_id}")
        accepted(db, child, "completed")
        assert deliver(db).runs == {}
    accepted(db, parent, "completed")
    assert len(deliver(db).runs) == 1
    assert heard_of(db, parent.session_id) == [child.session_id for child in reversed(children)]
    assert prompts(db, parent.session_id)[0].startswith('<agent-callback type="aggregated" count="3">')


def test_pending_or_delayed_run_makes_parent_busy(db: DbVerbs) -> None:
    """Keep the session's order of submission."""
    parent = finished(db)
    db.resume(parent, delay_seconds=3600.0)
    child = ended_child(db, parent, "done")
    assert deliver(db).runs == {}
    assert waiting(db, parent) == [child.session_id]


def test_result_during_callback_run_goes_with_next_callback(db: DbVerbs) -> None:
    """Treat the callback run like any other run."""
    parent = finished(db)
    first, second = child_of(db, parent), child_of(db, parent)
    accepted(db, first, "completed")
    run_id = deliver(db).runs[parent]
    accepted(db, second, "completed")
    assert deliver(db).runs == {}
    end_turn(db, run_id)
    deliver(db)
    assert heard_of(db, parent) == [first.session_id, second.session_id]


@pytest.mark.parametrize("outcome", ["failed", "stopped"])
def test_failed_or_stopped_parent_keeps_results_until_resumed(db: DbVerbs, outcome: str) -> None:
    """Deliver them after the resuming run has completed, not when it fails too."""
    parent = running(db)
    child = child_of(db, parent.session_id)
    accepted(db, parent, outcome)
    accepted(db, child, "completed")
    assert deliver(db).runs == {}
    end_turn(db, db.resume(parent.session_id).run_id, "failed")
    assert deliver(db).runs == {}
    end_turn(db, db.resume(parent.session_id).run_id)
    deliver(db)
    assert heard_of(db, parent.session_id) == [child.session_id]


def test_stopping_parent_keeps_results(db: DbVerbs) -> None:
    parent = idle(db)
    child = child_of(db, parent.session_id)
    stop(db, parent.session_id)
    accepted(db, child, "completed")
    assert deliver(db).runs == {}
    assert waiting(db, parent.session_id) == [child.session_id]


def test_session_that_is_its_own_parent_drops_its_results(db: DbVerbs) -> None:
    """Read sessions that earlier clients made so; a session is not resumed by its own end."""
    parent = finished(db)
    child = child_of(db, parent)
    db.rows("UPDATE runs SET parent_session_id = session_id WHERE run_id = :r", r=child.run_id)
    accepted(db, child, "completed")
    assert db.count("child_results") == 0


def test_deleted_parent_drops_waiting_and_later_results(db: DbVerbs) -> None:
    """Reuse its id for a new session: that one gets none of them."""
    parent = finished(db)
    early, late = child_of(db, parent), child_of(db, parent)
    accepted(db, early, "completed")
    assert isinstance(db.do(delete_sessions, [DeleteSession(ADMIN, parent)])[0], Deleted)
    assert db.count("child_results") == 0
    end_turn(db, db.start(session_id=parent).run_id)
    accepted(db, late, "completed")
    assert db.count("child_results") == 0
    assert deliver(db).runs == {}


def test_upkeep_removes_results_for_former_session_of_id(db: DbVerbs) -> None:
    """Write the result while the parent is being deleted."""
    parent = finished(db)
    ended_child(db, parent, "done")
    db.rows("UPDATE sessions SET incarnation = 'another' WHERE session_id = :s", s=parent)
    assert deliver(db).runs == {}
    db.do(upkeep)
    assert db.count("child_results") == 0


def test_upkeep_removes_results_delivered_a_day_ago(db: DbVerbs) -> None:
    """Keep those whose callback run has not started, and those that wait."""
    parent, other = finished(db), running(db).session_id
    ended_child(db, parent, "done")
    ended_child(db, other, "waits")
    run_id = deliver(db).runs[parent]
    db.do(upkeep)
    assert db.count("child_results") == 2
    end_turn(db, run_id)
    db.do(upkeep)
    assert db.count("child_results") == 2
    clocks.pass_time(db, "runs", "started_at", 90_000, "run_id = :r", r=run_id)
    db.do(upkeep)
    assert waiting(db, other) != []
    assert db.count("child_results") == 1


def test_results_of_unstarted_callback_wait_for_next_child_end(db: DbVerbs) -> None:
    """Cancelling the callback run starts no other at once; the end of another child delivers both."""
    parent = idle(db).session_id
    first, second = child_of(db, parent), child_of(db, parent)
    accepted(db, first, "completed")
    stop_run(db, deliver(db).runs[parent])
    assert db.session(parent).status == "idle"
    assert waiting(db, parent) == [first.session_id]
    assert deliver(db).runs == {}
    accepted(db, second, "completed")
    deliver(db)
    assert heard_of(db, parent) == [first.session_id, first.session_id, second.session_id]
    assert waiting(db, parent) == []


def test_returned_results_are_delivered_after_later_run_of_parent(db: DbVerbs) -> None:
    parent = finished(db)
    child = ended_child(db, parent, "done")
    stop_run(db, deliver(db).runs[parent])
    assert deliver(db).runs == {}
    end_turn(db, db.resume(parent).run_id)
    deliver(db)
    assert heard_of(db, parent) == [child.session_id] * 2


def test_unmatched_callback_run_returns_its_results(db: DbVerbs) -> None:
    """End it by the no-match deadline, before its start; the parent has failed then."""
    parent = finished(db)
    child = ended_child(db, parent, "done")
    run_id = deliver(db).runs[parent]
    db.rows("UPDATE runners SET left_at = now()")
    clocks.tick(db)
    no_match_due(db, run_id)
    clocks.tick(db)
    assert (db.session(parent).status, waiting(db, parent)) == ("failed", [child.session_id])
    assert deliver(db).runs == {}


@pytest.mark.parametrize("outcome", ["completed", "failed", "stopped"])
def test_started_callback_has_delivered_its_results(db: DbVerbs, outcome: str) -> None:
    """Count an end report without a start report as a start."""
    parent = finished(db)
    ended_child(db, parent, "done")
    deliver(db)
    (run,) = db.claim(db.runner())
    accepted(db, run, outcome)
    assert waiting(db, parent) == []
    assert deliver(db).runs == {}


def test_end_passes_through_three_generations(db: DbVerbs) -> None:
    """Let the grandchild's end resume the parent, whose end resumes the grandparent.

    The run goes on as its last one.
    """
    top = finished(db)
    middle = ended_child(db, top, "first word").session_id
    end_turn(db, deliver(db).runs[top])
    low = ended_child(db, middle, "from below").session_id
    run_id = deliver(db).runs[middle]
    carried = db.run(run_id)
    assert (carried.parent_session_id, carried.execution_mode) == (top, "async_callback")
    (run,) = db.claim(db.runner())
    accepted(db, run, "started")
    write_result(db, run, result_text="all done")
    accepted(db, run, "completed")
    assert db.session(middle).parent_session_id == top
    assert list(deliver(db).runs) == [top]
    assert heard_of(db, middle) == [low]
    assert heard_of(db, top) == [middle, middle]
    assert "\n\nall done\n" in prompts(db, top)[1]


def test_parent_with_deleted_grandparent_is_resumed_alone(db: DbVerbs) -> None:
    """Reuse the grandparent's id: the new session is no parent."""
    top = finished(db)
    middle = ended_child(db, top).session_id
    end_turn(db, deliver(db).runs[top])
    db.do(delete_sessions, [DeleteSession(ADMIN, top)])
    end_turn(db, db.start(session_id=top).run_id)
    ended_child(db, middle)
    assert db.run(deliver(db).runs[middle]).parent_session_id is None


def test_parent_that_became_ancestor_of_its_own_parent_is_resumed_alone(db: DbVerbs) -> None:
    """Resume a session with another parent, as clients may."""
    top = finished(db)
    middle = ended_child(db, top).session_id
    end_turn(db, deliver(db).runs[top])
    db.rows("UPDATE sessions SET parent_session_id = NULL WHERE session_id = :s", s=middle)
    db.rows("UPDATE sessions SET parent_session_id = :p WHERE session_id = :s", p=middle, s=top)
    ended_child(db, middle)
    assert db.run(deliver(db).runs[middle]).parent_session_id is None


def test_parent_and_grandparent_may_be_due_in_one_pass(db: DbVerbs) -> None:
    """Give each its run."""
    top = finished(db)
    middle = ended_child(db, top).session_id
    low = ended_child(db, middle).session_id
    assert set(deliver(db).runs) == {top, middle}
    assert (heard_of(db, top), heard_of(db, middle)) == ([middle], [low])


def test_callback_run_keeps_owner_of_session(db: DbVerbs) -> None:
    """Resume as the session's owner; a child belongs to its parent's owner, whatever caller submits it."""
    parent = finished(db, caller=Caller(Role.USER, "alice"))
    child = ended_child(db, parent, caller=ADMIN)
    assert (db.run(child.run_id).owner, db.session(child.session_id).owner) == ("alice", "alice")
    assert db.run(deliver(db).runs[parent]).owner == "alice"


def test_callback_run_has_default_match_deadline(db: DbVerbs) -> None:
    parent = finished(db)
    ended_child(db, parent)
    run_id = deliver(db, limits=Limits(no_match_timeout=77)).runs[parent]
    assert db.run(run_id).no_match_timeout_seconds == 77


def test_report_notifies_callbacks_only_if_parent_may_be_due(db: DbVerbs) -> None:
    """Notify for the end of a child and for the end of a parent with waiting results."""
    runner = db.runner(hostname="of-parent")
    parent = running(db, runner)
    child, other = child_of(db, parent.session_id), child_of(db, parent.session_id, execution_mode="sync")
    assert not accepted(db, other, "completed").calls_back
    assert accepted(db, child, "completed").calls_back
    assert not accepted(db, child, "completed").calls_back
    assert accepted(db, parent, "completed", session_status="idle").calls_back
    deliver(db)
    (run,) = db.claim(runner)
    assert not accepted(db, run, "started").calls_back
    assert not accepted(db, run, "completed").calls_back


def test_failed_parent_notifies_no_callbacks(db: DbVerbs) -> None:
    parent = running(db)
    ended_child(db, parent.session_id)
    assert not accepted(db, parent, "failed").calls_back


def test_deleted_session_ends_waiting_runs_first(db: DbVerbs) -> None:
    """Write the event of each run's end before that of the session's."""
    session_id = db.start().session_id
    db.resume(session_id)
    db.do(delete_sessions, [DeleteSession(ADMIN, session_id)])
    rows = db.rows(
        f"SELECT kind, frame->'run'->>'status' AS status FROM {RECORDED_EVENTS} WHERE session_id = :s ORDER BY id DESC LIMIT 4",
        s=session_id,
    )
    assert [(row.kind, row.status) for row in reversed(rows)] == [
        ("run_updated", "stopped"),
        ("run_updated", "stopped"),
        ("session_updated", None),
        ("session_deleted", None),
    ]


def test_expiry_notifies_callbacks_only_if_it_ended_something(db: DbVerbs) -> None:
    assert clocks.tick(db).actors == frozenset()
    run = claimed(db)
    clocks.due(db, run.run_id, "claim_deadline_at")
    assert "callbacks" in clocks.tick(db).actors
