"""Race deadlines against reports of the runner: one of the two decides, and both agree on the outcome."""

from collections.abc import Callable
from typing import Any

import pytest

from models.core.errors import InvalidTransition, StaleClaim
from models.runs.report import Reported, report_runs
from models.state.runs import Run
from tests.support.clocks import due, fall_silent, tick
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.reports import claimed, history, idle, report, running, stop
from tests.support.simultaneous_calls import call_together, verb_call

CROWDS = [2, 8, 16]


def race(db: DbVerbs, crowd: int, run: Run, outcome: str, **values: Any) -> list[Any]:
    """Return the results of as many reports of a run as there were concurrent passes of expiry."""
    passes: list[Callable[[], Any]] = [lambda: tick(db)] * crowd
    reports = [verb_call(db, report_runs, report(run, outcome, **values)) for _ in range(crowd)]
    return [result[0] for result in call_together([*passes, *reports])[crowd:]]


@pytest.mark.parametrize("crowd", CROWDS)
def test_start_against_start_deadline(db: DbVerbs, crowd: int) -> None:
    """Count the start, or end the claim; never both."""
    run = claimed(db)
    due(db, run.run_id, "claim_deadline_at")
    results = race(db, crowd, run, "started")
    row = db.run(run.run_id)
    if row.status == "running":
        assert all(isinstance(result, Reported) for result in results)
        assert (row.attempt, history(db, run.session_id)) == (1, ["run_start"])
    else:
        assert (row.status, row.attempt, row.ready, row.fruitless_claims) == ("pending", 0, True, 1)
        assert results == [StaleClaim(run.run_id, "pending")] * crowd


@pytest.mark.parametrize("crowd", CROWDS)
@pytest.mark.parametrize("attempts", [1, 2])
def test_end_against_time_limit_of_run(db: DbVerbs, crowd: int, attempts: int) -> None:
    """Complete the run, or time it out: then the report counts as that of a stopped run."""
    run = running(db, max_attempts=attempts, run_timeout_seconds=5)
    due(db, run.run_id, "run_deadline_at")
    results = race(db, crowd, run, "completed")
    row = db.run(run.run_id)
    assert all(isinstance(result, Reported) for result in results)
    assert sum(result.changed for result in results) == 1
    assert row.status in {"completed", "failed" if attempts == 1 else "pending"}
    assert row.error in {None, "Run timed out after 5 s"}
    assert (row.error is None) == (row.status != "failed")
    assert db.count("stop_commands") == 0


@pytest.mark.parametrize("crowd", CROWDS)
@pytest.mark.parametrize("attempts", [1, 2])
def test_end_against_loss_of_runner(db: DbVerbs, crowd: int, attempts: int) -> None:
    """A lost runner does not finish a run that goes to another."""
    runner = db.runner()
    run = running(db, runner, max_attempts=attempts)
    fall_silent(db, runner, 200)
    results = race(db, crowd, run, "completed")
    row = db.run(run.run_id)
    if row.status == "completed":
        assert all(isinstance(result, Reported) for result in results)
        assert sum(result.changed for result in results) == 1
    elif attempts == 1:
        assert (row.status, row.ended_by_us) == ("failed", True)
        assert all(isinstance(result, Reported) and not result.changed for result in results)
    else:
        assert (row.status, row.attempt) == ("pending", 1)
        assert results == [StaleClaim(run.run_id, "pending")] * crowd
    assert db.told_kinds(run.session_id).count("run_failed") == (row.status == "failed")


@pytest.mark.parametrize("crowd", CROWDS)
def test_late_start_against_loss_of_runner(db: DbVerbs, crowd: int) -> None:
    """Repeat the start, as a runner does that asks whether the run is still its own."""
    runner: Runner = db.runner()
    run = running(db, runner)
    fall_silent(db, runner, 200)
    race(db, crowd, run, "started")
    tick(db)
    assert db.run(run.run_id).status == "failed"
    results = race(db, crowd, run, "started")
    assert results == [InvalidTransition(run.run_id, "failed", "started")] * crowd


@pytest.mark.parametrize("crowd", CROWDS)
def test_end_against_stop_deadline(db: DbVerbs, crowd: int) -> None:
    """Stop the run once, with or without the report, and leave no open stop."""
    run = running(db)
    stop(db, run.session_id)
    due(db, run.run_id, "run_deadline_at")
    results = race(db, crowd, run, "completed")
    row = db.run(run.run_id)
    assert all(isinstance(result, Reported) for result in results)
    assert sum(result.changed for result in results) == (row.status == "completed")
    assert row.status in {"completed", "stopped"}
    assert db.session(run.session_id).status == {"completed": "finished"}.get(row.status, "stopped")
    assert db.count("stop_commands") == 0


@pytest.mark.parametrize("crowd", CROWDS)
def test_end_of_idle_process_against_stop_deadline(db: DbVerbs, crowd: int) -> None:
    """Stop the session either way."""
    run = idle(db)
    stop(db, run.session_id)
    db.rows("UPDATE stop_commands SET deadline_at = clock_timestamp() - interval '1 second'")
    race(db, crowd, run, "stopped", token=None)
    session = db.session(run.session_id)
    assert (session.status, session.runner_id, db.count("stop_commands")) == ("stopped", None, 0)
