"""Race changes of parents against each other: sessions stay a forest, however their starts interleave."""

from collections.abc import Callable

import pytest

from models.runs.report import report_runs
from tests.support.contenders import run_in_threads, with_one_repeat
from tests.support.db_verbs import DbVerbs
from tests.support.reparenting_scenarios import LIMITS, SCENARIOS, ancestry, reparenting_run
from tests.support.reports import finished, report


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_every_order_keeps_a_forest(db: DbVerbs, scenario: Callable[[DbVerbs], None]) -> None:
    """Run the scenarios unbroken; tests/mutations break a part of the mechanism."""
    scenario(db)


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
