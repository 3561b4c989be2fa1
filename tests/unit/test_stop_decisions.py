"""Check what a stop does, decided on the locked rows of its session."""

from collections import defaultdict

import pytest

from models.core.limits import Limits
from models.core.statuses import RunStatus
from models.runs.stop import OpenStop, plan_run_stop, plan_session_stop, stop_seconds
from tests.support.rows import RUNNER, locked_rows, run_row, session_row

SECONDS = defaultdict(lambda: 60.0, {RUNNER: 180.0})


def test_pending_runs_are_cancelled() -> None:
    """Cancel all of the session's pending runs, also those queued behind another."""
    first, second = run_row("pending"), run_row("pending", run_id="run_2", session_seq=2)
    plan = plan_session_stop(locked_rows(session_row("pending"), first, second), "ses_1", SECONDS)
    assert [(move.run.run_id, move.to, move.error) for move in plan.moves] == [
        ("run_1", RunStatus.STOPPED, None),
        ("run_2", RunStatus.STOPPED, None),
    ]
    assert (plan.answer.status, plan.answer.message, plan.open_stop) == ("stopped", None, None)


def test_undelivered_claim_is_cancelled_at_once() -> None:
    """Its runner has not received it and will not."""
    plan = plan_session_stop(
        locked_rows(session_row("pending"), run_row("claimed", delivered_at=None)), "ses_1", SECONDS
    )
    assert [move.to for move in plan.moves] == [RunStatus.STOPPED]
    assert (plan.answer.status, plan.open_stop) == ("stopped", None)


@pytest.mark.parametrize("status", ["claimed", "running"])
def test_running_run_is_told_to_stop(status: str) -> None:
    """Give its runner three of its heartbeats to do so; cancel the runs queued behind it."""
    behind = run_row("pending", run_id="run_2", session_seq=2)
    plan = plan_session_stop(locked_rows(session_row("running"), run_row(status), behind), "ses_1", SECONDS)
    assert {move.run.run_id: move.to for move in plan.moves} == {
        "run_1": RunStatus.STOPPING,
        "run_2": RunStatus.STOPPED,
    }
    assert {move.stop_seconds for move in plan.moves if move.to is RunStatus.STOPPING} == {180.0}
    assert plan.open_stop == OpenStop(RUNNER, 7, "ses_1", "run_1", 180.0)
    assert (plan.answer.run_id, plan.answer.status) == ("run_1", "stopping")


def test_second_stop_changes_nothing() -> None:
    plan = plan_session_stop(
        locked_rows(session_row("stopping"), run_row("stopping", stop_cause="stop")), "ses_1", SECONDS
    )
    assert (plan.moves, plan.answer.status, plan.answer.run_id) == ([], "stopping", "run_1")


def test_stopped_run_past_its_time_limit_is_not_requeued() -> None:
    """Change the cause to the stop; keep the deadline."""
    run = run_row("stopping", stop_cause="timeout", max_attempts=3)
    plan = plan_session_stop(locked_rows(session_row("stopping"), run), "ses_1", SECONDS)
    assert [(move.to, move.stop_cause, move.stop_seconds) for move in plan.moves] == [
        (RunStatus.STOPPING, "stop", None)
    ]


def test_idle_process_is_told_to_stop() -> None:
    """Hold the stop at the session, since there is no run."""
    session = session_row("idle", runner_id=RUNNER, registration=7)
    plan = plan_session_stop(locked_rows(session), "ses_1", SECONDS)
    assert plan.open_stop == OpenStop(RUNNER, 7, "ses_1", None, 180.0)
    assert plan.change is not None
    assert (plan.answer.status, plan.answer.run_id) == ("stopping", None)


@pytest.mark.parametrize("status", ["finished", "failed", "stopped"])
def test_stop_of_ended_session_is_no_error(status: str) -> None:
    plan = plan_session_stop(locked_rows(session_row(status), run_row("completed")), "ses_1", SECONDS)
    assert (plan.moves, plan.answer.status, plan.answer.message) == ([], status, f"Session already {status}")


def test_stopping_pending_run_leaves_other_runs_alone() -> None:
    """Only the active run takes its session with it."""
    active, waiting = run_row("running"), run_row("pending", run_id="run_2", session_seq=2)
    rows = locked_rows(session_row("running"), active, waiting)
    assert [move.run.run_id for move in plan_run_stop(rows, waiting, SECONDS).moves] == ["run_2"]
    assert {move.run.run_id for move in plan_run_stop(rows, active, SECONDS).moves} == {"run_1", "run_2"}


@pytest.mark.parametrize("status", ["completed", "failed", "stopped"])
def test_stopping_an_ended_run_returns_its_status(status: str) -> None:
    """Leave its session alone."""
    run = run_row(status)
    plan = plan_run_stop(locked_rows(session_row("idle", runner_id=RUNNER, registration=7), run), run, SECONDS)
    assert (plan.moves, plan.open_stop, plan.answer.status) == ([], None, status)


def test_runner_has_three_heartbeats_to_stop() -> None:
    """Give it at least the configured time."""
    assert stop_seconds(60, Limits(stop_timeout=60)) == 180
    assert stop_seconds(10, Limits(stop_timeout=60)) == 60
