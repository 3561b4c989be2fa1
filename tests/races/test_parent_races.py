"""Race changes of parents against each other: sessions stay a forest, however their starts interleave."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest

from models.core.limits import Limits
from models.runs.report import report_runs
from models.state.runs import Run
from tests.support.contenders import interleavings, run_in_threads, steppers, with_one_repeat
from tests.support.db_verbs import DbVerbs
from tests.support.parents import ancestry, reparenting_run
from tests.support.reports import finished, report

LIMITS = Limits(max_depth=3)


def start_both(db: DbVerbs, runs: Sequence[Run], sessions: Sequence[str], after: Sequence[str]) -> None:
    """Report both starts in this order of their steps; check that a forest of at most three levels is left."""
    with steppers(db.engine, 2) as contenders:
        steps: dict[str, Callable[[], object]] = {}
        for name, one, run in zip("ab", contenders, runs, strict=True):
            steps[f"{name} starts"] = partial(one.do, report_runs, [report(run, "started")], limits=LIMITS)
            steps[f"{name} commits"] = one.commit
        for step in after:
            steps[step]()
    lines = [ancestry(db, one) for one in sessions]
    assert all(len(set(one)) == len(one) for one in lines), f"a cycle after {after}: {lines}"
    assert all(len(one) <= LIMITS.max_depth + 1 for one in lines), f"too deep after {after}: {lines}"
    statuses = {db.run(run.run_id).status for run in runs}
    assert statuses == {"running"}, f"a start was refused after {after}"
    parents = [db.run(run.run_id).parent_session_id for run in runs]
    assert parents.count(None) == 1, f"one of them goes on alone after {after}: {parents}"


ORDERS = list(interleavings(["a starts", "a commits"], ["b starts", "b commits"]))


def test_resumes_that_name_each_other_make_no_cycle(db: DbVerbs) -> None:
    """Accept two resumes that name each other's session as parent before either starts."""
    for order in ORDERS:
        one, other = finished(db), finished(db)
        runs = reparenting_run(db, one, other), reparenting_run(db, other, one)
        start_both(db, runs, [one, other], order)


def test_two_changes_of_four_sessions_make_no_cycle(db: DbVerbs) -> None:
    """Make a cycle of two changes, neither of which touches a session of the other one."""
    for order in ORDERS:
        first, third = finished(db), finished(db)
        second, fourth = finished(db, parent_session_id=third), finished(db, parent_session_id=first)
        runs = reparenting_run(db, first, second), reparenting_run(db, third, fourth)
        start_both(db, runs, [first, second, third, fourth], order)


def test_two_changes_make_no_line_too_deep(db: DbVerbs) -> None:
    """Make two changes, each of which alone is not too deep."""
    for order in ORDERS:
        top, middle, low = finished(db), finished(db), finished(db)
        child = finished(db, parent_session_id=low)
        lowest = finished(db, parent_session_id=child)
        runs = reparenting_run(db, low, middle), reparenting_run(db, middle, top)
        start_both(db, runs, [top, middle, low, child, lowest], order)


def test_starts_of_one_batch_see_each_others_changes(db: DbVerbs) -> None:
    """Report both starts in one transaction, which must see its own changes."""
    one, other = finished(db), finished(db)
    runs = reparenting_run(db, one, other), reparenting_run(db, other, one)
    db.do(report_runs, [report(run, "started") for run in runs], limits=LIMITS)
    lines = [ancestry(db, each) for each in (one, other)]
    assert all(len(set(each)) == len(each) for each in lines), f"a cycle: {lines}"


SCENARIOS = (
    test_resumes_that_name_each_other_make_no_cycle,
    test_two_changes_of_four_sessions_make_no_cycle,
    test_two_changes_make_no_line_too_deep,
    test_starts_of_one_batch_see_each_others_changes,
)


@pytest.mark.parametrize("size", [2, 8, 32])
def test_cyclic_resumes_that_start_at_once_make_no_cycle(db: DbVerbs, size: int) -> None:
    """Each would become the next one's child: at least one goes on without a parent, and no line is too long."""
    sessions = [finished(db) for _ in range(size)]
    runs = [reparenting_run(db, one, sessions[(place + 1) % size]) for place, one in enumerate(sessions)]

    def start(place: int) -> None:
        with_one_repeat(
            db.engine,
            lambda conn, items: report_runs(conn, items, limits=LIMITS),
            [report(runs[place], "started")],
        )

    run_in_threads(size, start)
    lines = [ancestry(db, one) for one in sessions]
    assert all(len(set(one)) == len(one) <= LIMITS.max_depth + 1 for one in lines), lines
    assert {db.run(run.run_id).status for run in runs} == {"running"}
