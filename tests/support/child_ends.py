"""Every way in which a child's run may end, each carried out by the verbs that do it."""

from collections.abc import Callable

from models.claims.matching import Demands
from models.core.callers import ADMIN
from models.runners.leave import LeaveRunner, deregister_runners
from models.runners.register import Registration, register_runners
from models.runs.delete import Deleted, DeleteSession, delete_sessions
from tests.support import clocks
from tests.support.family import child_of, write_result
from tests.support.matching import no_match_due
from tests.support.reports import accepted, claimed, report, say, stop, time_out
from tests.support.truth import Truth

CALLS_BACK = "async_callback"


def completed(truth: Truth, parent: str) -> None:
    run = child_of(truth, parent)
    write_result(truth, run, result_text="done")
    accepted(truth, run, "completed")


def completed_unstarted(truth: Truth, parent: str) -> None:
    run = claimed(truth, parent_session_id=parent, execution_mode=CALLS_BACK)
    write_result(truth, run, result_text="done")
    accepted(truth, run, "completed")


def completed_and_idle(truth: Truth, parent: str) -> None:
    run = child_of(truth, parent)
    write_result(truth, run, result_data={"n": 1})
    accepted(truth, run, "completed", session_status="idle")


def failed(truth: Truth, parent: str) -> None:
    accepted(truth, child_of(truth, parent), "failed", error="disk full")


def stopped(truth: Truth, parent: str) -> None:
    run = child_of(truth, parent)
    stop(truth, run.session_id)
    accepted(truth, run, "stopped")


def cancelled(truth: Truth, parent: str) -> None:
    stop(truth, truth.start(parent_session_id=parent, execution_mode=CALLS_BACK).session_id)


def stop_given_up(truth: Truth, parent: str) -> None:
    run = child_of(truth, parent)
    stop(truth, run.session_id)
    clocks.due(truth, run.run_id, "run_deadline_at")
    clocks.tick(truth)


def timed_out(truth: Truth, parent: str) -> None:
    run = child_of(truth, parent, run_timeout_seconds=5)
    time_out(truth, run.run_id)
    say(truth, report(run, "stopped"))


def unmatched(truth: Truth, parent: str) -> None:
    gpu = Demands(tags=("gpu",))
    run = truth.start(parent_session_id=parent, execution_mode=CALLS_BACK, additional_demands=gpu)
    no_match_due(truth, run.run_id)
    clocks.tick(truth)


def lost(truth: Truth, parent: str) -> None:
    runner = truth.runner()
    child_of(truth, parent, runner)
    clocks.fall_silent(truth, runner, 999)
    clocks.tick(truth)


def left(truth: Truth, parent: str) -> None:
    runner = truth.runner()
    child_of(truth, parent, runner)
    truth.do(deregister_runners, [LeaveRunner(runner.runner_id, self_initiated=True)])


def replaced(truth: Truth, parent: str) -> None:
    runner = truth.runner(hostname="replaced")
    child_of(truth, parent, runner)
    clocks.fall_silent(truth, runner, 130)
    same = Registration("replaced", "/project", "profile", executor_type="autonomous")
    truth.do(register_runners, [same])


def not_held(truth: Truth, parent: str) -> None:
    run = child_of(truth, parent)
    truth.rows("UPDATE runs SET unheld_beats = 2 WHERE run_id = :r", r=run.run_id)
    clocks.tick(truth)


def never_started(truth: Truth, parent: str) -> None:
    run = claimed(truth, parent_session_id=parent, execution_mode=CALLS_BACK)
    truth.rows("UPDATE runs SET fruitless_claims = 9 WHERE run_id = :r", r=run.run_id)
    clocks.due(truth, run.run_id, "claim_deadline_at")
    clocks.tick(truth)


def deleted(truth: Truth, parent: str) -> None:
    run = truth.start(parent_session_id=parent, execution_mode=CALLS_BACK)
    (answer,) = truth.do(delete_sessions, [DeleteSession(ADMIN, run.session_id)])
    assert isinstance(answer, Deleted)


# the way, and what the parent reads
ENDS: list[tuple[Callable[[Truth, str], None], str]] = [
    (completed, "done"),
    (completed_unstarted, "done"),
    (completed_and_idle, '{\n  "n": 1\n}'),
    (failed, "disk full"),
    (stopped, "Session was manually stopped"),
    (cancelled, "Session was manually stopped"),
    (stop_given_up, "Session was manually stopped"),
    (timed_out, "Run timed out after 5 s"),
    (unmatched, "No matching runner: no runner offers tag 'gpu'"),
    (lost, "Runner lost: no sign of life for 999 s"),
    (left, "Runner lost: it left"),
    (replaced, "Runner lost: another process took its place"),
    (not_held, "Runner lost: it does not hold the run any more"),
    (never_started, "Claimed 10 times, never started"),
    (deleted, "Session was manually stopped"),
]
