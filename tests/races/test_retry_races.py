"""Race failures of runs with a retry policy: with each other, and with stops."""

from typing import Any

import pytest

from models.core.callers import ADMIN
from models.core.retries import Backoff, RetryPolicy
from models.runs.report import Reported, report_runs
from models.runs.report_plain import report_plain_runs
from models.runs.stop import Stopped, StopSession, stop_sessions
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.clocks import due, tick
from tests.support.db_verbs import DbVerbs
from tests.support.plain_first import PlainFirst
from tests.support.reports import accepted, report, running
from tests.support.simultaneous_calls import call_together, verb_call

POLICY = RetryPolicy(5, Backoff(initial=60, jitter=0))
RETURNS = f"SELECT count(*) FROM {RECORDED_EVENTS} WHERE CAST(frame AS text) LIKE '%\"failure\"%'"


@pytest.mark.parametrize("crowd", [2, 16])
def test_failure_reported_many_times_returns_the_run_once(db: DbVerbs, crowd: int) -> None:
    """Answer all alike; a report of the attempt before, late, does not touch the next one."""
    first = running(db, retry=POLICY)
    verb = PlainFirst(report_plain_runs, report_runs)
    results = call_together([verb_call(db, verb, report(first, "failed", error="e")) for _ in range(crowd)])
    assert sum(result[0].changed for result in results) == 1
    assert {result[0].status for result in results} == {"pending"}
    assert (db.run(first.run_id).attempt, db.one(RETURNS)) == (1, 1)
    due(db, first.run_id, "not_before")
    tick(db)
    (second,) = db.claim(db.runner())
    late = [verb_call(db, verb, report(first, "failed", error="e")) for _ in range(crowd)]
    results = call_together([*late, verb_call(db, verb, report(second, "started"))])
    assert not any(result[0].changed for result in results[:-1])
    row = db.run(first.run_id)
    assert (row.status, row.attempt, row.claim_token) == ("running", 2, second.claim_token)


@pytest.mark.parametrize("crowd", [2, 8])
def test_stop_against_failure_leaves_no_run_that_is_tried_again(db: DbVerbs, crowd: int) -> None:
    """Whichever comes first, the run ends: a failure after the stop is final, a stop ends the backoff."""
    run = running(db, retry=POLICY)
    calls: list[Any] = [verb_call(db, report_runs, report(run, "failed")) for _ in range(crowd)]
    calls += [verb_call(db, stop_sessions, StopSession(ADMIN, run.session_id)) for _ in range(crowd)]
    results = call_together(calls)
    assert all(isinstance(result[0], Reported | Stopped) for result in results)
    assert db.run(run.run_id).status in {"failed", "stopped"}
    assert db.session(run.session_id).status == db.run(run.run_id).status
    assert db.count("stop_commands") == 0


def test_completion_and_failure_of_one_attempt_exclude_each_other(db: DbVerbs) -> None:
    run = running(db, retry=POLICY)
    outcomes = ["failed", "completed"] * 4
    results = call_together([verb_call(db, report_runs, report(run, outcome)) for outcome in outcomes])
    (winner,) = [result[0] for result in results if isinstance(result[0], Reported) and result[0].changed]
    assert db.run(run.run_id).status == winner.status
    assert db.one(RETURNS) == (1 if winner.status == "pending" else 0)
    if winner.status == "pending":
        due(db, run.run_id, "not_before")
        tick(db)
        (second,) = db.claim(db.runner())
        accepted(db, second, "completed")
    assert db.run(run.run_id).status == "completed"
