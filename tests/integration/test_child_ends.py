"""Every way in which a child's run may end: each is delivered to its parent once."""

from collections.abc import Callable

import pytest

from models.claims.matching import Demands
from models.core.callers import ADMIN
from models.runners.leave import LeaveRunner, deregister_runners
from models.runners.register import register_runners
from models.runners.registration import Registration
from models.runs.delete import Deleted, DeleteSession, delete_sessions
from testkit.recorded_events import RECORDED_EVENTS
from tests.support import clocks
from tests.support.db_verbs import DbVerbs
from tests.support.matching import no_match_due
from tests.support.parents import child_of, deliver, last_run, prompts, write_result
from tests.support.reports import accepted, claimed, finished, report, say, stop, time_out

CALLS_BACK = "async_callback"


def completed(db: DbVerbs, parent: str) -> None:
    run = child_of(db, parent)
    write_result(db, run, result_text="done")
    accepted(db, run, "completed")


def completed_unstarted(db: DbVerbs, parent: str) -> None:
    run = claimed(db, parent_session_id=parent, execution_mode=CALLS_BACK)
    write_result(db, run, result_text="done")
    accepted(db, run, "completed")


def completed_and_idle(db: DbVerbs, parent: str) -> None:
    run = child_of(db, parent)
    write_result(db, run, result_data={"n": 1})
    accepted(db, run, "completed", session_status="idle")


def failed(db: DbVerbs, parent: str) -> None:
    accepted(db, child_of(db, parent), "failed", error="disk full")


def stopped(db: DbVerbs, parent: str) -> None:
    run = child_of(db, parent)
    stop(db, run.session_id)
    accepted(db, run, "stopped")


def cancelled(db: DbVerbs, parent: str) -> None:
    stop(db, db.start(parent_session_id=parent, execution_mode=CALLS_BACK).session_id)


def stop_given_up(db: DbVerbs, parent: str) -> None:
    run = child_of(db, parent)
    stop(db, run.session_id)
    clocks.due(db, run.run_id, "run_deadline_at")
    clocks.tick(db)


def timed_out(db: DbVerbs, parent: str) -> None:
    run = child_of(db, parent, run_timeout_seconds=5)
    time_out(db, run.run_id)
    say(db, report(run, "stopped"))


def unmatched(db: DbVerbs, parent: str) -> None:
    gpu = Demands(tags=("gpu",))
    run = db.start(parent_session_id=parent, execution_mode=CALLS_BACK, additional_demands=gpu)
    no_match_due(db, run.run_id)
    clocks.tick(db)


def lost(db: DbVerbs, parent: str) -> None:
    runner = db.runner()
    child_of(db, parent, runner)
    clocks.fall_silent(db, runner, 999)
    clocks.tick(db)


def left(db: DbVerbs, parent: str) -> None:
    runner = db.runner()
    child_of(db, parent, runner)
    db.do(deregister_runners, [LeaveRunner(runner.runner_id, self_initiated=True)])


def replaced(db: DbVerbs, parent: str) -> None:
    runner = db.runner(hostname="replaced")
    child_of(db, parent, runner)
    clocks.fall_silent(db, runner, 130)
    same = Registration("replaced", "/project", "profile", executor_type="autonomous")
    db.do(register_runners, [same])


def not_held(db: DbVerbs, parent: str) -> None:
    run = child_of(db, parent)
    db.rows("UPDATE runs SET unheld_beats = 2 WHERE run_id = :r", r=run.run_id)
    clocks.tick(db)


def never_started(db: DbVerbs, parent: str) -> None:
    run = claimed(db, parent_session_id=parent, execution_mode=CALLS_BACK)
    db.rows("UPDATE runs SET fruitless_claims = 9 WHERE run_id = :r", r=run.run_id)
    clocks.due(db, run.run_id, "claim_deadline_at")
    clocks.tick(db)


def deleted(db: DbVerbs, parent: str) -> None:
    run = db.start(parent_session_id=parent, execution_mode=CALLS_BACK)
    (answer,) = db.do(delete_sessions, [DeleteSession(ADMIN, run.session_id)])
    assert isinstance(answer, Deleted)


# Each way, and the text that the parent reads.
ENDS: list[tuple[Callable[[DbVerbs, str], None], str]] = [
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


@pytest.mark.parametrize(("end", "text"), ENDS, ids=lambda value: getattr(value, "__name__", ""))
def test_every_kind_of_child_end_is_delivered_once(db: DbVerbs, end: Callable[[DbVerbs, str], None], text: str) -> None:
    """Resume the parent by one run that any runner may claim, shown on the feed; a second pass finds nothing."""
    parent = finished(db)
    end(db, parent)
    assert list(deliver(db).runs) == [parent]
    (prompt,) = prompts(db, parent)
    assert f"\n\n{text}\n</agent-callback>\n\n" in prompt
    run = last_run(db, parent)
    assert (run.type, run.status, run.ready, run.execution_mode) == ("resume_session", "pending", True, "sync")
    assert db.session(parent).status == "pending"
    assert db.count(RECORDED_EVENTS, "kind = 'run_updated' AND run_id = :r", r=run.run_id) == 1
    assert deliver(db).runs == {}
    assert db.count("child_results", "delivered_in = :r", r=run.run_id) == 1
