"""Parents hear of their children: whatever ended them, once, together while busy (PROTOCOL, Parents and children)."""

from collections.abc import Callable

import pytest

from models.core.callers import ADMIN, Caller, Role
from models.core.limits import Limits
from models.expiry.cleanup import upkeep
from models.runs.delete import Deleted, DeleteSession, delete_sessions
from tests.support import clocks
from tests.support.child_ends import ENDS
from tests.support.family import (
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
from tests.support.matching import no_match_due
from tests.support.reports import accepted, claimed, idle, running, stop, stop_run
from tests.support.truth import Truth


@pytest.mark.parametrize(("end", "text"), ENDS, ids=lambda value: getattr(value, "__name__", ""))
def test_whatever_ends_a_child_its_parent_hears_of_it_once(
    truth: Truth, end: Callable[[Truth, str], None], text: str
) -> None:
    """By one resume run that any runner may take, told on the feed; a second pass finds nothing."""
    parent = finished(truth)
    end(truth, parent)
    assert list(deliver(truth).runs) == [parent]
    (prompt,) = prompts(truth, parent)
    assert f"\n\n{text}\n</agent-callback>\n\n" in prompt
    run = last_run(truth, parent)
    assert (run.type, run.status, run.ready, run.execution_mode) == ("resume_session", "pending", True, "sync")
    assert truth.session(parent).status == "pending"
    assert truth.count("events", "kind = 'run_updated' AND run_id = :r", r=run.run_id) == 1
    assert deliver(truth).runs == {}
    assert truth.count("child_results", "delivered_in = :r", r=run.run_id) == 1


def test_an_idle_parent_is_resumed_too(truth: Truth) -> None:
    """Where its process lives: the run has the session's affinity."""
    parent = idle(truth).session_id
    truth.rows("UPDATE sessions SET hostname = 'here', executor_profile = 'mine' WHERE session_id = :s", s=parent)
    child = ended_child(truth, parent, "done")
    deliver(truth)
    run = last_run(truth, parent)
    assert (run.demands["hostname"], run.demands["executor_profile"]) == ("here", "mine")
    assert heard_of(truth, parent) == [child.session_id]


@pytest.mark.parametrize("mode", ["sync", "async_poll"])
def test_other_modes_tell_nobody(truth: Truth, mode: str) -> None:
    """Somebody waits or asks."""
    parent = finished(truth)
    ended_child(truth, parent, execution_mode=mode)
    assert truth.count("child_results") == 0


def test_a_run_that_goes_back_to_the_queue_has_not_ended(truth: Truth) -> None:
    """Its parent hears of the last attempt only."""
    parent = finished(truth)
    runner = truth.runner()
    child_of(truth, parent, runner, max_attempts=2)
    clocks.fall_silent(truth, runner, 999)
    clocks.tick(truth)
    assert truth.count("child_results") == 0


def test_results_of_a_busy_parent_wait_and_go_together(truth: Truth) -> None:
    """In the order in which the children ended, in one run, when its own run has ended."""
    parent = running(truth)
    children = [child_of(truth, parent.session_id) for _ in range(3)]
    for child in reversed(children):
        write_result(truth, child, result_text=f"of {child.session_id}")
        accepted(truth, child, "completed")
        assert deliver(truth).runs == {}
    accepted(truth, parent, "completed")
    assert len(deliver(truth).runs) == 1
    assert heard_of(truth, parent.session_id) == [child.session_id for child in reversed(children)]
    assert prompts(truth, parent.session_id)[0].startswith('<agent-callback type="aggregated" count="3">')


def test_a_pending_run_makes_a_parent_busy_also_a_delayed_one(truth: Truth) -> None:
    """Order of submission is the order of a session."""
    parent = finished(truth)
    truth.resume(parent, delay_seconds=3600.0)
    child = ended_child(truth, parent, "done")
    assert deliver(truth).runs == {}
    assert waiting(truth, parent) == [child.session_id]


def test_what_ends_while_results_are_carried_goes_with_the_next_run(truth: Truth) -> None:
    """The carrying run is a run like any other."""
    parent = finished(truth)
    first, second = child_of(truth, parent), child_of(truth, parent)
    accepted(truth, first, "completed")
    run_id = deliver(truth).runs[parent]
    accepted(truth, second, "completed")
    assert deliver(truth).runs == {}
    end_turn(truth, run_id)
    deliver(truth)
    assert heard_of(truth, parent) == [first.session_id, second.session_id]


@pytest.mark.parametrize("outcome", ["failed", "stopped"])
def test_a_failed_or_stopped_parent_keeps_results_until_somebody_resumes_it(truth: Truth, outcome: str) -> None:
    """They go after that run has ended well, and not when it fails too."""
    parent = running(truth)
    child = child_of(truth, parent.session_id)
    accepted(truth, parent, outcome)
    accepted(truth, child, "completed")
    assert deliver(truth).runs == {}
    end_turn(truth, truth.resume(parent.session_id).run_id, "failed")
    assert deliver(truth).runs == {}
    end_turn(truth, truth.resume(parent.session_id).run_id)
    deliver(truth)
    assert heard_of(truth, parent.session_id) == [child.session_id]


def test_a_stopping_parent_keeps_results(truth: Truth) -> None:
    """Its process is about to end."""
    parent = idle(truth)
    child = child_of(truth, parent.session_id)
    stop(truth, parent.session_id)
    accepted(truth, child, "completed")
    assert deliver(truth).runs == {}
    assert waiting(truth, parent.session_id) == [child.session_id]


def test_a_session_that_is_its_own_parent_drops_its_results(truth: Truth) -> None:
    """Deployed clients have made such sessions; no resume follows from itself."""
    parent = finished(truth)
    child = child_of(truth, parent)
    truth.rows("UPDATE runs SET parent_session_id = session_id WHERE run_id = :r", r=child.run_id)
    accepted(truth, child, "completed")
    assert truth.count("child_results") == 0


def test_a_deleted_parent_drops_results_that_wait_and_those_that_come(truth: Truth) -> None:
    """Also when a new session has taken its id."""
    parent = finished(truth)
    early, late = child_of(truth, parent), child_of(truth, parent)
    accepted(truth, early, "completed")
    assert isinstance(truth.do(delete_sessions, [DeleteSession(ADMIN, parent)])[0], Deleted)
    assert truth.count("child_results") == 0
    end_turn(truth, truth.start(session_id=parent).run_id)
    accepted(truth, late, "completed")
    assert truth.count("child_results") == 0
    assert deliver(truth).runs == {}


def test_a_result_for_a_former_session_of_the_id_is_removed_by_upkeep(truth: Truth) -> None:
    """It was written while the parent was being deleted."""
    parent = finished(truth)
    ended_child(truth, parent, "done")
    truth.rows("UPDATE sessions SET incarnation = 'another' WHERE session_id = :s", s=parent)
    assert deliver(truth).runs == {}
    truth.do(upkeep)
    assert truth.count("child_results") == 0


def test_upkeep_removes_what_was_delivered_a_day_ago(truth: Truth) -> None:
    """Not before its run has begun, and not what waits."""
    parent, other = finished(truth), running(truth).session_id
    ended_child(truth, parent, "done")
    ended_child(truth, other, "waits")
    run_id = deliver(truth).runs[parent]
    truth.do(upkeep)
    assert truth.count("child_results") == 2
    end_turn(truth, run_id)
    truth.do(upkeep)
    assert truth.count("child_results") == 2
    clocks.pass_time(truth, "runs", "started_at", 90_000, "run_id = :r", r=run_id)
    truth.do(upkeep)
    assert waiting(truth, other) != []
    assert truth.count("child_results") == 1


def test_what_a_run_carried_that_never_began_waits_for_the_next_occasion(truth: Truth) -> None:
    """Whoever cancels it does not get another one at once; the end of another child brings both."""
    parent = idle(truth).session_id
    first, second = child_of(truth, parent), child_of(truth, parent)
    accepted(truth, first, "completed")
    stop_run(truth, deliver(truth).runs[parent])
    assert truth.session(parent).status == "idle"
    assert waiting(truth, parent) == [first.session_id]
    assert deliver(truth).runs == {}
    accepted(truth, second, "completed")
    deliver(truth)
    assert heard_of(truth, parent) == [first.session_id, first.session_id, second.session_id]
    assert waiting(truth, parent) == []


def test_what_came_back_goes_after_a_later_run_too(truth: Truth) -> None:
    """Somebody has gone on with the parent: that is an occasion."""
    parent = finished(truth)
    child = ended_child(truth, parent, "done")
    stop_run(truth, deliver(truth).runs[parent])
    assert deliver(truth).runs == {}
    end_turn(truth, truth.resume(parent).run_id)
    deliver(truth)
    assert heard_of(truth, parent) == [child.session_id] * 2


def test_a_carrying_run_that_nobody_takes_gives_its_results_back(truth: Truth) -> None:
    """No match is an end before the start; the parent has failed then."""
    parent = finished(truth)
    child = ended_child(truth, parent, "done")
    run_id = deliver(truth).runs[parent]
    truth.rows("UPDATE runners SET left_at = now()")
    clocks.tick(truth)
    no_match_due(truth, run_id)
    clocks.tick(truth)
    assert (truth.session(parent).status, waiting(truth, parent)) == ("failed", [child.session_id])
    assert deliver(truth).runs == {}


@pytest.mark.parametrize("outcome", ["completed", "failed", "stopped"])
def test_a_carrying_run_that_began_has_delivered(truth: Truth, outcome: str) -> None:
    """Also when its start was never reported."""
    parent = finished(truth)
    ended_child(truth, parent, "done")
    deliver(truth)
    (run,) = truth.claim(truth.runner())
    accepted(truth, run, outcome)
    assert waiting(truth, parent) == []
    assert deliver(truth).runs == {}


def test_three_generations(truth: Truth) -> None:
    """The grandchild's end resumes the parent, whose end resumes the grandparent: the run goes on as its last one."""
    top = finished(truth)
    middle = ended_child(truth, top, "first word").session_id
    end_turn(truth, deliver(truth).runs[top])
    low = ended_child(truth, middle, "from below").session_id
    run_id = deliver(truth).runs[middle]
    carried = truth.run(run_id)
    assert (carried.parent_session_id, carried.execution_mode) == (top, "async_callback")
    (run,) = truth.claim(truth.runner())
    accepted(truth, run, "started")
    write_result(truth, run, result_text="all done")
    accepted(truth, run, "completed")
    assert truth.session(middle).parent_session_id == top
    assert list(deliver(truth).runs) == [top]
    assert heard_of(truth, middle) == [low]
    assert heard_of(truth, top) == [middle, middle]
    assert "\n\nall done\n" in prompts(truth, top)[1]


def test_a_parent_whose_own_parent_is_gone_goes_on_alone(truth: Truth) -> None:
    """Also when a new session has taken the id: that one is nobody's parent."""
    top = finished(truth)
    middle = ended_child(truth, top).session_id
    end_turn(truth, deliver(truth).runs[top])
    truth.do(delete_sessions, [DeleteSession(ADMIN, top)])
    end_turn(truth, truth.start(session_id=top).run_id)
    ended_child(truth, middle)
    assert truth.run(deliver(truth).runs[middle]).parent_session_id is None


def test_a_parent_that_has_become_the_ancestor_of_its_own_parent_goes_on_alone(truth: Truth) -> None:
    """Who resumes a session may give it another parent."""
    top = finished(truth)
    middle = ended_child(truth, top).session_id
    end_turn(truth, deliver(truth).runs[top])
    truth.rows("UPDATE sessions SET parent_session_id = NULL WHERE session_id = :s", s=middle)
    truth.rows("UPDATE sessions SET parent_session_id = :p WHERE session_id = :s", p=middle, s=top)
    ended_child(truth, middle)
    assert truth.run(deliver(truth).runs[middle]).parent_session_id is None


def test_a_parent_and_its_own_parent_may_be_due_in_one_pass(truth: Truth) -> None:
    """Each gets its run."""
    top = finished(truth)
    middle = ended_child(truth, top).session_id
    low = ended_child(truth, middle).session_id
    assert set(deliver(truth).runs) == {top, middle}
    assert (heard_of(truth, top), heard_of(truth, middle)) == ([middle], [low])


def test_the_session_keeps_its_owner(truth: Truth) -> None:
    """We resume it, it stays whose it was; a child is its parent's owner's, whoever submits it."""
    parent = finished(truth, caller=Caller(Role.USER, "alice"))
    child = ended_child(truth, parent, caller=ADMIN)
    assert (truth.run(child.run_id).owner, truth.session(child.session_id).owner) == ("alice", "alice")
    assert truth.run(deliver(truth).runs[parent]).owner == "alice"


def test_a_match_deadline_as_for_every_other_run(truth: Truth) -> None:
    """By the settings."""
    parent = finished(truth)
    ended_child(truth, parent)
    run_id = deliver(truth, limits=Limits(no_match_timeout=77)).runs[parent]
    assert truth.run(run_id).no_match_timeout_seconds == 77


def test_a_report_says_whether_a_parent_may_be_due(truth: Truth) -> None:
    """The end of a child, and the end of a parent for which something waits; nothing else rings."""
    parent = running(truth)
    child, other = child_of(truth, parent.session_id), child_of(truth, parent.session_id, execution_mode="sync")
    assert not accepted(truth, other, "completed").calls_back
    assert accepted(truth, child, "completed").calls_back
    assert not accepted(truth, child, "completed").calls_back
    assert accepted(truth, parent, "completed", session_status="idle").calls_back
    deliver(truth)
    (run,) = truth.claim(truth.runner())
    assert not accepted(truth, run, "started").calls_back
    assert not accepted(truth, run, "completed").calls_back


def test_a_failed_parent_rings_for_nobody(truth: Truth) -> None:
    """What it keeps is not due."""
    parent = running(truth)
    ended_child(truth, parent.session_id)
    assert not accepted(truth, parent, "failed").calls_back


def test_a_deleted_session_ends_what_waits_in_it_first(truth: Truth) -> None:
    """The feed tells of the end of each run before it tells of the end of the session."""
    session_id = truth.start().session_id
    truth.resume(session_id)
    truth.do(delete_sessions, [DeleteSession(ADMIN, session_id)])
    rows = truth.rows(
        "SELECT kind, frame->'run'->>'status' AS status FROM events WHERE session_id = :s ORDER BY id DESC LIMIT 4",
        s=session_id,
    )
    assert [(row.kind, row.status) for row in reversed(rows)] == [
        ("run_updated", "stopped"),
        ("run_updated", "stopped"),
        ("session_updated", None),
        ("session_deleted", None),
    ]


def test_expiry_rings_for_parents_when_it_ended_something(truth: Truth) -> None:
    """And not when it found nothing."""
    assert clocks.tick(truth).rings == frozenset()
    run = claimed(truth)
    clocks.due(truth, run.run_id, "claim_deadline_at")
    assert "callbacks" in clocks.tick(truth).rings
