"""Ends of children against everything that may happen to their parents at the same moment: each is told once."""

from collections.abc import Callable
from functools import partial

import pytest

from models.callbacks.resume_parents import deliver_results
from models.runs.report import report_runs
from models.state.locks import hold_sessions
from tests.support import calling_back
from tests.support.calling_back import check_told
from tests.support.contenders import steppers
from tests.support.crowd import calling, together
from tests.support.family import child_of, deliver, end_all_turns, ended_child, finished
from tests.support.reports import report, running
from tests.support.truth import Truth


@pytest.mark.parametrize(
    "scenario",
    [
        calling_back.child_and_parent_end,
        calling_back.two_actors,
        calling_back.what_was_told_is_not_told_again,
        calling_back.a_parent_that_became_busy_is_left_alone,
        calling_back.a_cancelled_run_gives_back_what_it_carried,
        calling_back.cancelling_against_another_end,
        calling_back.deleting_the_parent,
    ],
    ids=lambda scenario: scenario.__name__,
)
def test_in_every_order(truth: Truth, scenario: Callable[[Truth], None]) -> None:
    """The scenarios as they are; the mutations break a part of the mechanism."""
    scenario(truth)


@pytest.mark.parametrize("held", ["parent", "grandparent"])
def test_an_actor_waits_for_nobody(truth: Truth, held: str) -> None:
    """Whoever holds the parent, or the one above it, is left alone until the next pass."""
    top = finished(truth)
    middle = ended_child(truth, top).session_id
    deliver(truth)
    end_all_turns(truth)
    low = ended_child(truth, middle).session_id
    with steppers(truth.engine, 2) as (one, actor):
        one.do(hold_sessions, [middle if held == "parent" else top]).result()
        passed = actor.do(deliver_results)
        assert passed.done(), "the actor waits"
        assert passed.result().runs == {}
    assert list(deliver(truth).runs) == [middle]
    check_told(truth, middle, [low])


@pytest.mark.parametrize("actors", [2, 8])
def test_of_many_actors_at_once_one_resumes_a_parent(truth: Truth, actors: int) -> None:
    """And the parents that it holds are nobody else's."""
    families = {parent: [ended_child(truth, parent).session_id for _ in range(3)] for parent in _parents(truth, 5)}
    passes = together([partial(truth.do, deliver_results) for _ in range(actors)])
    deliver(truth)
    for parent, children in families.items():
        check_told(truth, parent, children)
    assert sum(len(one.runs) for one in passes) <= len(families)


@pytest.mark.parametrize("crowd", [8, 32])
def test_children_that_end_at_once_are_each_told_once(truth: Truth, crowd: int) -> None:
    """While actors come by, and parents end, too."""
    busy = running(truth)
    parents = [busy.session_id, *_parents(truth, 3)]
    children = {parent: [child_of(truth, parent) for _ in range(crowd // 4)] for parent in parents}
    ends: list[Callable[[], object]] = [
        calling(truth, report_runs, report(run, "completed")) for runs in children.values() for run in runs
    ]
    actors: list[Callable[[], object]] = [partial(truth.do, deliver_results) for _ in range(4)]
    together([*ends, *actors, calling(truth, report_runs, report(busy, "completed"))])
    end_all_turns(truth)
    while deliver(truth).runs:
        end_all_turns(truth)
    for parent, runs in children.items():
        check_told(truth, parent, [run.session_id for run in runs])


def _parents(truth: Truth, number: int) -> list[str]:
    return [finished(truth) for _ in range(number)]
