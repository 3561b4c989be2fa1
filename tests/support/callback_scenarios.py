"""Scenarios of ending children and their parents: races run them unbroken, mutations with a part broken."""

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
from tests.support.contenders import Stepper, interleavings, steppers
from tests.support.db_verbs import DbVerbs
from tests.support.parents import child_of, deliver, end_all_turns, end_turn, ended_child, heard_of, waiting
from tests.support.reports import accepted, finished, report, running, stop_run

Steps = dict[str, Callable[[], object]]


def check_told(db: DbVerbs, parent: str, children: list[str], after: object = "") -> None:
    """Check that the parent was told of each of its children once."""
    told = Counter(heard_of(db, parent))
    assert told == Counter(children), f"after {after}"
    assert waiting(db, parent) == [], f"after {after}"


def steps_of(stepper: Stepper, name: str, verb: Callable[..., Any], *args: Any) -> Steps:
    """Return one contender's steps: its verb, and its commit."""
    return {name: lambda: stepper.do(verb, *args), f"{name}, commit": stepper.commit}


def child_and_parent_end(db: DbVerbs) -> None:
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


def two_actors(db: DbVerbs) -> None:
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


def delivered_result_is_not_delivered_again(db: DbVerbs) -> None:
    """Bring the actor back by the end of another child."""
    parent = finished(db)
    first = ended_child(db, parent).session_id
    end_turn(db, deliver(db).runs[parent])
    second = ended_child(db, parent).session_id
    deliver(db)
    check_told(db, parent, [first, second])


def parent_that_became_busy_is_skipped(db: DbVerbs) -> None:
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


def cancelled_run_returns_its_results(db: DbVerbs) -> None:
    """Lose no result with a run that never began."""
    parent = finished(db)
    first = ended_child(db, parent).session_id
    stop_run(db, deliver(db).runs[parent])
    assert waiting(db, parent) == [first], "lost with the run"


def cancelling_against_another_end(db: DbVerbs) -> None:
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


def deleting_the_parent(db: DbVerbs) -> None:
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
