"""Race many reports of one run: one counts, whatever the others say."""

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import pytest

from models.core.errors import InvalidTransition, StaleClaim
from models.core.statuses import Outcome
from models.runs.report import Reported, report_runs
from tests.support.db_verbs import DbVerbs
from tests.support.reports import claimed, history, report, running, time_out
from tests.support.simultaneous_calls import call_together, verb_call

ENDS = ("completed", "failed", "stopped")
CROWDS = [2, 8, 32]


def first(results: Sequence[Sequence[Any]]) -> list[Any]:
    return [result[0] for result in results]


@pytest.mark.parametrize("crowd", CROWDS)
@pytest.mark.parametrize("token", ["own", None])
def test_one_of_many_end_reports_takes_effect(db: DbVerbs, crowd: int, token: str | None) -> None:
    """Accept the same outcome again, refuse another one, and tell the end once."""
    run = claimed(db)
    said = list(islice(cycle(ENDS), crowd))
    results = first(call_together([verb_call(db, report_runs, report(run, outcome, token=token)) for outcome in said]))
    row = db.run(run.run_id)
    winners = [result for result in results if isinstance(result, Reported) and result.changed]
    assert [winner.status for winner in winners] == [row.status]
    for outcome, result in zip(said, results, strict=True):
        if outcome == row.status:
            assert isinstance(result, Reported)
        else:
            assert result == InvalidTransition(run.run_id, row.status, outcome)
    assert row.attempt == 1
    assert history(db, run.session_id).count("run_start") == 1


@pytest.mark.parametrize("crowd", CROWDS)
def test_start_reported_many_times_counts_once(db: DbVerbs, crowd: int) -> None:
    """Answer every repeat with 200."""
    run = claimed(db)
    results = first(call_together([verb_call(db, report_runs, report(run, "started")) for _ in range(crowd)]))
    assert sum(result.changed for result in results) == 1
    assert (db.run(run.run_id).attempt, history(db, run.session_id)) == (1, ["run_start"])


@pytest.mark.parametrize("crowd", CROWDS)
def test_lost_runner_cannot_finish_reassigned_run(db: DbVerbs, crowd: int) -> None:
    """Send many of its reports while the new owner starts and finishes."""
    old = running(db, max_attempts=2)
    db.rows(
        "UPDATE runs SET status = 'pending', runner_id = NULL, registration = NULL, claim_token = NULL, ready = true,"
        " delivered_at = NULL, started_at = NULL, claimed_at = NULL WHERE run_id = :r",
        r=old.run_id,
    )
    (new,) = db.claim(db.runner())
    late = [
        report(old, outcome.value, token=token)
        for outcome, token in islice(cycle((o, t) for o in Outcome for t in ("own", None)), crowd)
    ]
    calls = [verb_call(db, report_runs, one) for one in late]
    results = first(call_together([*calls, verb_call(db, report_runs, report(new, "started"), report(new, "stopped"))]))
    assert all(isinstance(result, StaleClaim) for result in results[:-1])
    assert isinstance(results[-1], Reported)
    row = db.run(old.run_id)
    assert (row.status, row.runner_id, row.attempt) == ("stopped", new.runner_id, 2)


@pytest.mark.parametrize("crowd", CROWDS)
def test_timed_out_run_is_requeued_once(db: DbVerbs, crowd: int) -> None:
    """A repeated end report does not end it a second time."""
    run = running(db, max_attempts=5, run_timeout_seconds=5)
    time_out(db, run.run_id)
    results = first(call_together([verb_call(db, report_runs, report(run, "stopped")) for _ in range(crowd)]))
    assert all(isinstance(result, Reported) for result in results)
    assert sum(result.changed for result in results) == 1
    assert (db.run(run.run_id).status, db.run(run.run_id).attempt) == ("pending", 1)


@pytest.mark.parametrize("crowd", CROWDS)
def test_report_batches_in_opposite_order_do_not_deadlock(db: DbVerbs, crowd: int) -> None:
    """Lock rows in id order, not in the batch's: not one transaction has to be repeated."""
    runner = db.runner()
    runs = [claimed(db, runner) for _ in range(6)]
    batch = [report(run, "started") for run in runs] + [report(run, "completed") for run in runs]
    backwards = [report(run, "started") for run in reversed(runs)] + [
        report(run, "completed") for run in reversed(runs)
    ]
    calls = [verb_call(db, report_runs, *items, repeats=0) for items in islice(cycle((batch, backwards)), crowd)]
    results = call_together(calls)
    assert all(isinstance(one, Reported) for result in results for one in result)
    assert sum(one.changed for result in results for one in result if isinstance(one, Reported)) == 12
    assert {db.run(run.run_id).status for run in runs} == {"completed"}
