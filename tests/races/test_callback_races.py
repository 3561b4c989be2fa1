"""Race ends of children against everything that may happen to their parents: each child is told once."""

from collections.abc import Callable
from functools import partial

import pytest

from models.callbacks.resume_parents import deliver_results
from models.runs.report import report_runs
from models.state.locks import lock_sessions
from tests.support import callback_scenarios
from tests.support.callback_scenarios import check_told
from tests.support.contenders import steppers
from tests.support.db_verbs import DbVerbs
from tests.support.parents import child_of, deliver, end_all_turns, ended_child
from tests.support.reports import finished, report, running
from tests.support.simultaneous_calls import call_together, verb_call


@pytest.mark.parametrize(
    "scenario",
    [
        callback_scenarios.child_and_parent_end,
        callback_scenarios.two_actors,
        callback_scenarios.delivered_result_is_not_delivered_again,
        callback_scenarios.parent_that_became_busy_is_skipped,
        callback_scenarios.cancelled_run_returns_its_results,
        callback_scenarios.cancelling_against_another_end,
        callback_scenarios.deleting_the_parent,
    ],
    ids=lambda scenario: scenario.__name__,
)
def test_every_order_tells_each_child_once(db: DbVerbs, scenario: Callable[[DbVerbs], None]) -> None:
    """Run the scenarios unbroken; tests/mutations break a part of the mechanism."""
    scenario(db)


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
    families = {parent: [ended_child(db, parent).session_id for _ in range(3)] for parent in _parents(db, 5)}
    passes = call_together([partial(db.do, deliver_results) for _ in range(actors)])
    deliver(db)
    for parent, children in families.items():
        check_told(db, parent, children)
    assert sum(len(one.runs) for one in passes) <= len(families)


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
