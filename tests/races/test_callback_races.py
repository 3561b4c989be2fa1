"""Race ends of children against everything that may happen to their parents: each child is told once."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection

from models.callbacks import resume_parents
from models.callbacks.resume_parents import deliver_results
from models.claims.matching import ensure_profiles
from models.core.callers import ADMIN
from models.expiry.cleanup import upkeep
from models.runs.delete import DeleteSession, delete_sessions
from models.runs.report import report_runs
from models.runs.stop import StopRun, stop_runs
from models.state.locks import lock_sessions
from tests.support.contenders import Stepper, interleavings, steppers
from tests.support.db_verbs import DbVerbs
from tests.support.parents import child_of, deliver, end_all_turns, end_turn, ended_child, heard_of, waiting
from tests.support.reports import accepted, finished, report, running, stop_run
from tests.support.simultaneous_calls import call_together, verb_call

Steps = dict[str, Callable[[], object]]


def check_told(db: DbVerbs, parent: str, children: list[str], after: object = "") -> None:
    """Check that the parent was told of each of its children once."""
    told = Counter(heard_of(db, parent))
    assert told == Counter(children), f"after {after}"
    assert waiting(db, parent) == [], f"after {after}"


def steps_of(stepper: Stepper, name: str, verb: Callable[..., Any], *args: Any) -> Steps:
    """Return one contender's steps: its verb, and its commit."""
    return {name: lambda: stepper.do(verb, *args), f"{name}, commit": stepper.commit}


def test_child_that_ends_beside_its_parent_is_told_once(db: DbVerbs) -> None:
    """End a child while its parent's run ends and the actor runs: in every order the child is told once."""
    names = [[name, f"{name}, commit"] for name in ("child", "parent", "actor")]
    for two in interleavings(names[0], names[1]):
        for order in interleavings(two, names[2]):
            parent = running(db)
            child = child_of(db, parent.session_id)
            with steppers(db.engine, 3) as (one, other, actor):
                steps = steps_of(one, "child", report_runs, [report(child, "completed")])
                steps |= steps_of(other, "parent", report_runs, [report(parent, "completed")])
                steps |= steps_of(actor, "actor", deliver_results)
                for name in order:
                    steps[name]()
            deliver(db)
            check_told(db, parent.session_id, [child.session_id], order)
            end_all_turns(db)


def test_two_actors_tell_each_child_once(db: DbVerbs) -> None:
    """Run two actors in every order, with every transaction open across the other's steps."""
    for order in interleavings(["one", "one, commit"], ["other", "other, commit"]):
        parent = finished(db)
        children = [ended_child(db, parent).session_id for _ in range(2)]
        with steppers(db.engine, 2) as (one, other):
            steps = steps_of(one, "one", deliver_results) | steps_of(other, "other", deliver_results)
            for name in order:
                steps[name]()
        deliver(db)
        check_told(db, parent, children, order)
        end_all_turns(db)


def test_delivered_result_is_not_delivered_again(db: DbVerbs) -> None:
    """Bring the actor back by the end of another child."""
    parent = finished(db)
    first = ended_child(db, parent).session_id
    end_turn(db, deliver(db).runs[parent])
    second = ended_child(db, parent).session_id
    deliver(db)
    check_told(db, parent, [first, second])


def test_parent_that_became_busy_is_skipped(db: DbVerbs) -> None:
    """Resume it after the actor has found it and before it is locked."""
    parent = finished(db)
    child = ended_child(db, parent).session_id
    resumed: list[str] = []

    def resume_first(conn: Connection, demands: Any) -> Any:
        resumed.append(db.resume(parent).run_id)
        return ensure_profiles(conn, demands)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume_parents, "ensure_profiles", resume_first)
        assert deliver(db).runs == {}, "a busy parent was resumed"
    end_turn(db, resumed[0])
    deliver(db)
    check_told(db, parent, [child])


def test_cancelled_run_returns_its_results(db: DbVerbs) -> None:
    """Lose no result with a run that never began."""
    parent = finished(db)
    first = ended_child(db, parent).session_id
    stop_run(db, deliver(db).runs[parent])
    assert waiting(db, parent) == [first], "lost with the run"


def test_cancelled_run_and_another_end_lose_no_result(db: DbVerbs) -> None:
    """Cancel the carrying run while another child ends: in every order both results end in runs that can begin."""
    for two in interleavings(["cancel", "cancel, commit"], ["end", "end, commit"]):
        for order in interleavings(two, ["actor"]):
            parent = finished(db)
            first, second = child_of(db, parent), child_of(db, parent)
            accepted(db, first, "completed")
            run_id = deliver(db).runs[parent]
            with steppers(db.engine, 2) as (one, other):
                steps = steps_of(one, "cancel", stop_runs, [StopRun(ADMIN, run_id)])
                steps |= steps_of(other, "end", report_runs, [report(second, "completed")])
                steps["actor"] = partial(deliver, db)
                for name in order:
                    steps[name]()
            deliver(db)
            # The cancelled run leaves the session stopped: only a client can resume it.
            if db.session(parent).status == "stopped":
                end_turn(db, db.resume(parent).run_id)
                deliver(db)
            rows = db.rows(
                "SELECT c.child_session_id, r.status FROM child_results c JOIN runs r ON r.run_id = c.delivered_in "
                "WHERE c.parent_session_id = :p",
                p=parent,
            )
            told = {row.child_session_id: row.status for row in rows}
            assert told == dict.fromkeys((first.session_id, second.session_id), "pending"), f"after {order}"
            end_all_turns(db)


def test_deleted_parents_children_are_told_to_no_session(db: DbVerbs) -> None:
    """Delete the parent while a run ends whose session is not its child yet: in every order no session is told, not
    even a new one with the parent's id.
    """
    for order in interleavings(["delete", "delete, commit"], ["end", "end, commit"]):
        parent, child = finished(db), finished(db)
        run = db.resume(child, parent_session_id=parent, execution_mode="async_callback")
        with steppers(db.engine, 2) as (one, other):
            steps = steps_of(one, "delete", delete_sessions, [DeleteSession(ADMIN, parent)])
            steps |= steps_of(other, "end", stop_runs, [StopRun(ADMIN, run.run_id)])
            for name in order:
                steps[name]()
        end_turn(db, db.start(session_id=parent).run_id)
        assert deliver(db).runs == {}, f"after {order}"
        db.do(upkeep)
        assert db.count("child_results") == 0, f"after {order}"


@pytest.mark.parametrize("held", ["parent", "grandparent"])
def test_callback_actor_skips_locked_parents(db: DbVerbs, held: str) -> None:
    """Leave a parent, or the session above it, to the next pass while another transaction locks it."""
    top = finished(db)
    middle = ended_child(db, top).session_id
    deliver(db)
    end_all_turns(db)
    low = ended_child(db, middle).session_id
    with steppers(db.engine, 2) as (one, actor):
        one.do(lock_sessions, [middle if held == "parent" else top]).result()
        passed = actor.do(deliver_results)
        assert passed.done(), "the actor waits"
        assert passed.result().runs == {}
    assert list(deliver(db).runs) == [middle]
    check_told(db, middle, [low])


@pytest.mark.parametrize("actors", [2, 8])
def test_one_of_many_actors_resumes_a_parent(db: DbVerbs, actors: int) -> None:
    """No other actor resumes the parents that it has locked."""
    children_of = {parent: [ended_child(db, parent).session_id for _ in range(3)] for parent in _parents(db, 5)}
    passes = call_together([partial(db.do, deliver_results) for _ in range(actors)])
    deliver(db)
    for parent, children in children_of.items():
        check_told(db, parent, children)
    assert sum(len(one.runs) for one in passes) <= len(children_of)


@pytest.mark.parametrize("crowd", [8, 32])
def test_children_that_end_at_once_are_told_once(db: DbVerbs, crowd: int) -> None:
    """Run actors meanwhile, and end parents too."""
    busy = running(db)
    parents = [busy.session_id, *_parents(db, 3)]
    children = {parent: [child_of(db, parent) for _ in range(crowd // 4)] for parent in parents}
    ends: list[Callable[[], object]] = [
        verb_call(db, report_runs, report(run, "completed")) for runs in children.values() for run in runs
    ]
    actors: list[Callable[[], object]] = [partial(db.do, deliver_results) for _ in range(4)]
    call_together([*ends, *actors, verb_call(db, report_runs, report(busy, "completed"))])
    end_all_turns(db)
    while deliver(db).runs:
        end_all_turns(db)
    for parent, runs in children.items():
        check_told(db, parent, [run.session_id for run in runs])


def _parents(db: DbVerbs, number: int) -> list[str]:
    return [finished(db) for _ in range(number)]
