"""Deadlines that pass at the moment the runner reports: one of the two decides, and both agree on what."""

from collections.abc import Callable
from typing import Any

import pytest

from models.core.errors import InvalidTransition, StaleClaim
from models.runs.report import Reported, report_runs
from models.state.runs import Run
from tests.support.clocks import due, fall_silent, tick
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.reports import claimed, history, idle, report, running, stop
from tests.support.simultaneous_calls import calling, together

CROWDS = [2, 8, 16]


def race(db: DbVerbs, crowd: int, run: Run, outcome: str, **values: Any) -> list[Any]:
    """What as many reports of a run came to as there were passes of expiry beside them."""
    passes: list[Callable[[], Any]] = [lambda: tick(db)] * crowd
    reports = [calling(db, report_runs, report(run, outcome, **values)) for _ in range(crowd)]
    return [result[0] for result in together([*passes, *reports])[crowd:]]


@pytest.mark.parametrize("crowd", CROWDS)
def test_a_start_against_its_deadline(db: DbVerbs, crowd: int) -> None:
    """It counts, or the claim has ended; never both."""
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
def test_an_end_against_the_runs_time_limit(db: DbVerbs, crowd: int, attempts: int) -> None:
    """In time it is completed, else it timed out: then the report is that of a stopped run."""
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
def test_an_end_against_the_loss_of_its_runner(db: DbVerbs, crowd: int, attempts: int) -> None:
    """A run that goes to another is not finished by the one that was lost."""
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
def test_a_late_start_against_the_loss_of_its_runner(db: DbVerbs, crowd: int) -> None:
    """Repeated by a runner that asks whether the run is still its own."""
    runner: Runner = db.runner()
    run = running(db, runner)
    fall_silent(db, runner, 200)
    race(db, crowd, run, "started")
    tick(db)
    assert db.run(run.run_id).status == "failed"
    results = race(db, crowd, run, "started")
    assert results == [InvalidTransition(run.run_id, "failed", "started")] * crowd


@pytest.mark.parametrize("crowd", CROWDS)
def test_an_end_against_the_deadline_of_its_stop(db: DbVerbs, crowd: int) -> None:
    """Stopped by its word or without it, once, and no stop is left."""
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
def test_the_end_of_an_idle_process_against_the_deadline_of_its_stop(db: DbVerbs, crowd: int) -> None:
    """The session is stopped either way."""
    run = idle(db)
    stop(db, run.session_id)
    db.rows("UPDATE stop_commands SET deadline_at = clock_timestamp() - interval '1 second'")
    race(db, crowd, run, "stopped", token=None)
    session = db.session(run.session_id)
    assert (session.status, session.runner_id, db.count("stop_commands")) == ("stopped", None, 0)
