"""Parents hear of their children: whatever ended them, once, together while busy (PROTOCOL, Parents and children)."""

from collections.abc import Callable

import pytest

from models.core.callers import ADMIN, Caller, Role
from models.core.limits import Limits
from models.expiry.cleanup import upkeep
from models.runs.delete import Deleted, DeleteSession, delete_sessions
from tests.support import clocks
from tests.support.child_ends import ENDS
from tests.support.db_verbs import DbVerbs
from tests.support.matching import no_match_due
from tests.support.parents import (
    child_of,
    deliver,
    end_turn,
    ended_child,
    finished,
    heard_of,
    last_run,
    prompts,
    waiting,
    write_result,
)
from tests.support.reports import accepted, claimed, idle, running, stop, stop_run


@pytest.mark.parametrize(("end", "text"), ENDS, ids=lambda value: getattr(value, "__name__", ""))
def test_whatever_ends_a_child_its_parent_hears_of_it_once(
    db: DbVerbs, end: Callable[[DbVerbs, str], None], text: str
) -> None:
    """By one resume run that any runner may take, told on the feed; a second pass finds nothing."""
    parent = finished(db)
    end(db, parent)
    assert list(deliver(db).runs) == [parent]
    (prompt,) = prompts(db, parent)
    assert f"\n\n{text}\n</agent-callback>\n\n" in prompt
    run = last_run(db, parent)
    assert (run.type, run.status, run.ready, run.execution_mode) == ("resume_session", "pending", True, "sync")
    assert db.session(parent).status == "pending"
    assert db.count("events", "kind = 'run_updated' AND run_id = :r", r=run.run_id) == 1
    assert deliver(db).runs == {}
    assert db.count("child_results", "delivered_in = :r", r=run.run_id) == 1


def test_an_idle_parent_is_resumed_too(db: DbVerbs) -> None:
    """Where its process lives: the run has the session's affinity."""
    parent = idle(db).session_id
    db.rows("UPDATE sessions SET hostname = 'here', executor_profile = 'mine' WHERE session_id = :s", s=parent)
    child = ended_child(db, parent, "done")
    deliver(db)
    run = last_run(db, parent)
    assert (run.demands["hostname"], run.demands["executor_profile"]) == ("here", "mine")
    assert heard_of(db, parent) == [child.session_id]


@pytest.mark.parametrize("mode", ["sync", "async_poll"])
def test_other_modes_tell_nobody(db: DbVerbs, mode: str) -> None:
    """Somebody waits or asks."""
    parent = finished(db)
    ended_child(db, parent, execution_mode=mode)
    assert db.count("child_results") == 0


def test_a_run_that_goes_back_to_the_queue_has_not_ended(db: DbVerbs) -> None:
    """Its parent hears of the last attempt only."""
    parent = finished(db)
    runner = db.runner()
    child_of(db, parent, runner, max_attempts=2)
    clocks.fall_silent(db, runner, 999)
    clocks.tick(db)
    assert db.count("child_results") == 0


def test_results_of_a_busy_parent_wait_and_go_together(db: DbVerbs) -> None:
    """In the order in which the children ended, in one run, when its own run has ended."""
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


def test_a_pending_run_makes_a_parent_busy_also_a_delayed_one(db: DbVerbs) -> None:
    """Order of submission is the order of a session."""
    parent = finished(db)
    db.resume(parent, delay_seconds=3600.0)
    child = ended_child(db, parent, "done")
    assert deliver(db).runs == {}
    assert waiting(db, parent) == [child.session_id]


def test_what_ends_while_results_are_carried_goes_with_the_next_run(db: DbVerbs) -> None:
    """The carrying run is a run like any other."""
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
def test_a_failed_or_stopped_parent_keeps_results_until_somebody_resumes_it(db: DbVerbs, outcome: str) -> None:
    """They go after that run has ended well, and not when it fails too."""
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


def test_a_stopping_parent_keeps_results(db: DbVerbs) -> None:
    """Its process is about to end."""
    parent = idle(db)
    child = child_of(db, parent.session_id)
    stop(db, parent.session_id)
    accepted(db, child, "completed")
    assert deliver(db).runs == {}
    assert waiting(db, parent.session_id) == [child.session_id]


def test_a_session_that_is_its_own_parent_drops_its_results(db: DbVerbs) -> None:
    """Deployed clients have made such sessions; no resume follows from itself."""
    parent = finished(db)
    child = child_of(db, parent)
    db.rows("UPDATE runs SET parent_session_id = session_id WHERE run_id = :r", r=child.run_id)
    accepted(db, child, "completed")
    assert db.count("child_results") == 0


def test_a_deleted_parent_drops_results_that_wait_and_those_that_come(db: DbVerbs) -> None:
    """Also when a new session has taken its id."""
    parent = finished(db)
    early, late = child_of(db, parent), child_of(db, parent)
    accepted(db, early, "completed")
    assert isinstance(db.do(delete_sessions, [DeleteSession(ADMIN, parent)])[0], Deleted)
    assert db.count("child_results") == 0
    end_turn(db, db.start(session_id=parent).run_id)
    accepted(db, late, "completed")
    assert db.count("child_results") == 0
    assert deliver(db).runs == {}


def test_a_result_for_a_former_session_of_the_id_is_removed_by_upkeep(db: DbVerbs) -> None:
    """It was written while the parent was being deleted."""
    parent = finished(db)
    ended_child(db, parent, "done")
    db.rows("UPDATE sessions SET incarnation = 'another' WHERE session_id = :s", s=parent)
    assert deliver(db).runs == {}
    db.do(upkeep)
    assert db.count("child_results") == 0


def test_upkeep_removes_what_was_delivered_a_day_ago(db: DbVerbs) -> None:
    """Not before its run has begun, and not what waits."""
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


def test_what_a_run_carried_that_never_began_waits_for_the_next_occasion(db: DbVerbs) -> None:
    """Whoever cancels it does not get another one at once; the end of another child brings both."""
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


def test_what_came_back_goes_after_a_later_run_too(db: DbVerbs) -> None:
    """Somebody has gone on with the parent: that is an occasion."""
    parent = finished(db)
    child = ended_child(db, parent, "done")
    stop_run(db, deliver(db).runs[parent])
    assert deliver(db).runs == {}
    end_turn(db, db.resume(parent).run_id)
    deliver(db)
    assert heard_of(db, parent) == [child.session_id] * 2


def test_a_carrying_run_that_nobody_takes_gives_its_results_back(db: DbVerbs) -> None:
    """No match is an end before the start; the parent has failed then."""
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
def test_a_carrying_run_that_began_has_delivered(db: DbVerbs, outcome: str) -> None:
    """Also when its start was never reported."""
    parent = finished(db)
    ended_child(db, parent, "done")
    deliver(db)
    (run,) = db.claim(db.runner())
    accepted(db, run, outcome)
    assert waiting(db, parent) == []
    assert deliver(db).runs == {}


def test_three_generations(db: DbVerbs) -> None:
    """The grandchild's end resumes the parent, whose end resumes the grandparent: the run goes on as its last one."""
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


def test_a_parent_whose_own_parent_is_gone_goes_on_alone(db: DbVerbs) -> None:
    """Also when a new session has taken the id: that one is nobody's parent."""
    top = finished(db)
    middle = ended_child(db, top).session_id
    end_turn(db, deliver(db).runs[top])
    db.do(delete_sessions, [DeleteSession(ADMIN, top)])
    end_turn(db, db.start(session_id=top).run_id)
    ended_child(db, middle)
    assert db.run(deliver(db).runs[middle]).parent_session_id is None


def test_a_parent_that_has_become_the_ancestor_of_its_own_parent_goes_on_alone(db: DbVerbs) -> None:
    """Who resumes a session may give it another parent."""
    top = finished(db)
    middle = ended_child(db, top).session_id
    end_turn(db, deliver(db).runs[top])
    db.rows("UPDATE sessions SET parent_session_id = NULL WHERE session_id = :s", s=middle)
    db.rows("UPDATE sessions SET parent_session_id = :p WHERE session_id = :s", p=middle, s=top)
    ended_child(db, middle)
    assert db.run(deliver(db).runs[middle]).parent_session_id is None


def test_a_parent_and_its_own_parent_may_be_due_in_one_pass(db: DbVerbs) -> None:
    """Each gets its run."""
    top = finished(db)
    middle = ended_child(db, top).session_id
    low = ended_child(db, middle).session_id
    assert set(deliver(db).runs) == {top, middle}
    assert (heard_of(db, top), heard_of(db, middle)) == ([middle], [low])


def test_the_session_keeps_its_owner(db: DbVerbs) -> None:
    """We resume it, it stays whose it was; a child is its parent's owner's, whoever submits it."""
    parent = finished(db, caller=Caller(Role.USER, "alice"))
    child = ended_child(db, parent, caller=ADMIN)
    assert (db.run(child.run_id).owner, db.session(child.session_id).owner) == ("alice", "alice")
    assert db.run(deliver(db).runs[parent]).owner == "alice"


def test_a_match_deadline_as_for_every_other_run(db: DbVerbs) -> None:
    """By the settings."""
    parent = finished(db)
    ended_child(db, parent)
    run_id = deliver(db, limits=Limits(no_match_timeout=77)).runs[parent]
    assert db.run(run_id).no_match_timeout_seconds == 77


def test_a_report_says_whether_a_parent_may_be_due(db: DbVerbs) -> None:
    """The end of a child, and the end of a parent for which something waits; nothing else rings."""
    parent = running(db)
    child, other = child_of(db, parent.session_id), child_of(db, parent.session_id, execution_mode="sync")
    assert not accepted(db, other, "completed").calls_back
    assert accepted(db, child, "completed").calls_back
    assert not accepted(db, child, "completed").calls_back
    assert accepted(db, parent, "completed", session_status="idle").calls_back
    deliver(db)
    (run,) = db.claim(db.runner())
    assert not accepted(db, run, "started").calls_back
    assert not accepted(db, run, "completed").calls_back


def test_a_failed_parent_rings_for_nobody(db: DbVerbs) -> None:
    """What it keeps is not due."""
    parent = running(db)
    ended_child(db, parent.session_id)
    assert not accepted(db, parent, "failed").calls_back


def test_a_deleted_session_ends_what_waits_in_it_first(db: DbVerbs) -> None:
    """The feed tells of the end of each run before it tells of the end of the session."""
    session_id = db.start().session_id
    db.resume(session_id)
    db.do(delete_sessions, [DeleteSession(ADMIN, session_id)])
    rows = db.rows(
        "SELECT kind, frame->'run'->>'status' AS status FROM events WHERE session_id = :s ORDER BY id DESC LIMIT 4",
        s=session_id,
    )
    assert [(row.kind, row.status) for row in reversed(rows)] == [
        ("run_updated", "stopped"),
        ("run_updated", "stopped"),
        ("session_updated", None),
        ("session_deleted", None),
    ]


def test_expiry_rings_for_parents_when_it_ended_something(db: DbVerbs) -> None:
    """And not when it found nothing."""
    assert clocks.tick(db).actors == frozenset()
    run = claimed(db)
    clocks.due(db, run.run_id, "claim_deadline_at")
    assert "callbacks" in clocks.tick(db).actors
