"""Stops on a real database: what is cancelled, what is told to runners, and what ends a stop."""

from itertools import product
from typing import Any

import pytest

from models.claims.delivery import Claim, confirm_deliveries
from models.core.callers import ADMIN, Caller, Role
from models.core.errors import InvalidTransition, NotFound, RunnerNotRegistered, StaleClaim
from models.core.limits import Limits
from models.runs.stop import Stopped, StopRun, StopSession, stop_runs, stop_sessions
from models.sessions.bind import ReportSessionStatus, report_session_statuses
from models.state.runs import Run
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.db_verbs import DbVerbs
from tests.support.reports import (
    accepted,
    claimed,
    idle,
    parked_run,
    report,
    running,
    say,
    session_statuses,
    stop,
    stop_run,
    time_out,
)


def session_report(db: DbVerbs, runner_id: str, session_id: str, status: str = "finished") -> Any:
    (result,) = db.do(report_session_statuses, [ReportSessionStatus(runner_id, session_id, status)])
    return result


def test_pending_run_is_cancelled_with_its_session(db: DbVerbs) -> None:
    """Prevent later claims; tell no runner and set no error."""
    run = db.start()
    assert stop(db, run.session_id) == Stopped(run.session_id, run.run_id, "stopped")
    row = db.run(run.run_id)
    assert (row.status, row.error, row.attempt, row.ready) == ("stopped", None, 0, False)
    assert row.completed_at is not None
    assert (db.session(run.session_id).status, db.count("stop_commands")) == ("stopped", 0)
    assert db.claim(db.runner()) == []


def test_delayed_run_is_cancelled_too(db: DbVerbs) -> None:
    """Stop all runs of the session, whatever they wait for."""
    first = db.start(delay_seconds=3600)
    second = db.resume(first.session_id)
    stop(db, first.session_id)
    assert {db.run(item.run_id).status for item in (first, second)} == {"stopped"}


def test_undelivered_claim_is_cancelled_and_not_delivered(db: DbVerbs) -> None:
    """Refuse the confirmation by the instance that holds the poll."""
    runner = db.runner()
    ask = db.park(runner)
    submitted = db.start()
    db.dispatch()
    run_id = parked_run(db, runner, ask)
    assert stop(db, submitted.session_id).status == "stopped"
    token = db.run(run_id).claim_token
    assert db.do(confirm_deliveries, [Claim(run_id, token)]) == [StaleClaim(run_id, "stopped")]
    assert (db.run(run_id).status, db.count("stop_commands")) == ("stopped", 0)


@pytest.mark.parametrize("begin", [claimed, running])
def test_running_run_is_told_to_stop(db: DbVerbs, begin: Any) -> None:
    """Tell it on its runner's next poll; the session is stopping until the end is reported."""
    run: Run = begin(db)
    runner = db.rows("SELECT runner_id, registration FROM runs WHERE run_id = :r", r=run.run_id)[0]
    assert stop(db, run.session_id) == Stopped(run.session_id, run.run_id, "stopping")
    row = db.run(run.run_id)
    assert (row.status, row.stop_cause, row.error) == ("stopping", "stop", None)
    assert db.session(run.session_id).status == "stopping"
    (command,) = db.rows("SELECT *, deadline_at - created_at AS after FROM stop_commands")
    assert (command.runner_id, command.registration, command.run_id) == (
        runner.runner_id,
        runner.registration,
        run.run_id,
    )
    assert round(command.after.total_seconds()) == 180
    assert round((row.run_deadline_at - command.created_at).total_seconds()) == 180
    accepted(db, run, "stopped")
    assert (db.session(run.session_id).status, db.count("stop_commands")) == ("stopped", 0)


def test_stop_deadline_is_shorter_for_frequent_heartbeats(db: DbVerbs) -> None:
    """Allow three heartbeat intervals, at least the configured time."""
    run = running(db, db.runner(told_interval=10))
    db.do(stop_sessions, [StopSession(ADMIN, run.session_id)], limits=Limits(stop_timeout=45))
    (command,) = db.rows("SELECT deadline_at - created_at AS after FROM stop_commands")
    assert round(command.after.total_seconds()) == 45


def test_repeated_stop_is_one_stop(db: DbVerbs) -> None:
    """Answer with the present state; neither move the deadline nor tell the runner again."""
    run = running(db)
    stop(db, run.session_id)
    before, events = db.rows("SELECT * FROM stop_commands"), db.count(RECORDED_EVENTS)
    row = db.run(run.run_id)
    assert stop(db, run.session_id) == Stopped(run.session_id, run.run_id, "stopping")
    assert (db.rows("SELECT * FROM stop_commands"), db.count(RECORDED_EVENTS)) == (before, events)
    assert db.run(run.run_id) == row
    accepted(db, run, "stopped")
    assert stop(db, run.session_id) == Stopped(run.session_id, None, "stopped", "Session already stopped")


@pytest.mark.parametrize("outcome", ["completed", "failed", "stopped"])
def test_stop_of_ended_session_returns_its_status(db: DbVerbs, outcome: str) -> None:
    """Raise no error for a late stop."""
    run = running(db)
    accepted(db, run, outcome)
    status = db.session(run.session_id).status
    assert stop(db, run.session_id) == Stopped(run.session_id, None, status, f"Session already {status}")


def test_idle_process_is_told_to_stop(db: DbVerbs) -> None:
    """End it by its runner's report about the session, since no run holds the stop."""
    run = idle(db)
    assert run.runner_id is not None
    assert stop(db, run.session_id) == Stopped(run.session_id, None, "stopping")
    assert db.session(run.session_id).status == "stopping"
    assert session_report(db, run.runner_id, run.session_id, "stopped") is True
    session = db.session(run.session_id)
    assert (session.status, session.runner_id, db.count("stop_commands")) == ("stopped", None, 0)
    assert session_statuses(db, run.session_id) == ["pending", "running", "idle", "stopping", "stopped"]


def test_idle_process_reported_by_its_last_run_is_stopped(db: DbVerbs) -> None:
    """Stop it although the report is refused: the run had ended."""
    run = idle(db)
    stop(db, run.session_id)
    assert say(db, report(run, "stopped", token=None)) == [InvalidTransition(run.run_id, "completed", "stopped")]
    session = db.session(run.session_id)
    assert (session.status, session.runner_id, db.count("stop_commands")) == ("stopped", None, 0)


def test_repeated_end_report_does_not_answer_stop(db: DbVerbs) -> None:
    """Keep the stop open: the report says that the process lives, and the stop is for the process."""
    run = idle(db)
    stop(db, run.session_id)
    assert accepted(db, run, "completed", session_status="idle").changed is False
    assert (db.session(run.session_id).status, db.count("stop_commands")) == ("stopping", 1)


def test_turn_ending_idle_leaves_stop_of_session_open(db: DbVerbs) -> None:
    """Stop its process, which lives on."""
    run = running(db)
    assert run.runner_id is not None
    stop(db, run.session_id)
    accepted(db, run, "completed", session_status="idle")
    session = db.session(run.session_id)
    assert (session.status, session.runner_id, db.count("stop_commands")) == ("stopping", run.runner_id, 1)
    assert session_report(db, run.runner_id, run.session_id, "stopped") is True
    assert db.session(run.session_id).status == "stopped"


def test_no_run_is_claimed_while_stop_is_open(db: DbVerbs) -> None:
    """Hold it back: deployed runners know sessions only, and would stop the new one."""
    run = running(db)
    stop(db, run.session_id)
    resumed = db.resume(run.session_id)
    assert db.run(resumed.run_id).ready is False
    assert db.claim(db.runner()) == []
    accepted(db, run, "stopped")
    assert db.run(resumed.run_id).ready is True
    assert db.session(run.session_id).status == "pending"


def test_second_stop_cancels_runs_submitted_since_first(db: DbVerbs) -> None:
    """Leave the first one going on."""
    run = running(db)
    stop(db, run.session_id)
    resumed = db.resume(run.session_id)
    assert stop(db, run.session_id).status == "stopping"
    assert [db.run(run_id).status for run_id in (run.run_id, resumed.run_id)] == ["stopping", "stopped"]


def test_cancelled_resume_returns_session_with_live_process_to_idle(db: DbVerbs) -> None:
    """Stop the run only."""
    run = idle(db)
    resumed = db.resume(run.session_id)
    assert db.session(run.session_id).status == "pending"
    assert stop_run(db, resumed.run_id) == Stopped(run.session_id, resumed.run_id, "stopped")
    assert (db.session(run.session_id).status, db.count("stop_commands")) == ("idle", 0)


def test_stopping_active_run_stops_its_session(db: DbVerbs) -> None:
    """Cancel the runs behind it; stopping a waiting one alone leaves the session running."""
    run = running(db)
    second, third = db.resume(run.session_id), db.resume(run.session_id)
    assert stop_run(db, second.run_id).status == "stopped"
    assert [db.run(run_id).status for run_id in (run.run_id, third.run_id)] == ["running", "pending"]
    assert stop_run(db, run.run_id) == Stopped(run.session_id, run.run_id, "stopping")
    assert [db.run(run_id).status for run_id in (run.run_id, third.run_id)] == ["stopping", "stopped"]
    assert db.session(run.session_id).status == "stopping"
    accepted(db, run, "stopped")
    assert stop_run(db, run.run_id) == Stopped(run.session_id, run.run_id, "stopped", "Run already stopped")


def test_cancelled_run_makes_next_one_ready(db: DbVerbs) -> None:
    first = db.start(delay_seconds=3600)
    second = db.resume(first.session_id)
    assert db.run(second.run_id).ready is False
    stop_run(db, first.run_id)
    assert db.run(second.run_id).ready is True
    assert db.session(first.session_id).status == "pending"


def test_stopped_run_that_timed_out_is_not_requeued(db: DbVerbs) -> None:
    run = running(db, max_attempts=3, run_timeout_seconds=5)
    time_out(db, run.run_id)
    deadline = db.run(run.run_id).run_deadline_at
    stop(db, run.session_id)
    assert db.run(run.run_id).run_deadline_at == deadline
    accepted(db, run, "stopped")
    assert db.run(run.run_id).status == "stopped"


def test_start_that_crosses_stop_is_accepted_and_changes_nothing(db: DbVerbs) -> None:
    """Tell the stop on its runner's next poll."""
    run = claimed(db)
    stop(db, run.session_id)
    assert accepted(db, run, "started").changed is False
    assert db.run(run.run_id).status == "stopping"
    accepted(db, run, "stopped")
    assert (db.run(run.run_id).status, db.run(run.run_id).attempt) == ("stopped", 1)


def test_stop_of_another_owners_resource_is_not_found(db: DbVerbs) -> None:
    alice, bob = Caller(Role.USER, "alice"), Caller(Role.USER, "bob")
    run = db.start(caller=alice)
    results = db.do(
        stop_sessions,
        [StopSession(bob, run.session_id), StopSession(ADMIN, "ses_unknown"), StopSession(alice, run.session_id)],
    )
    assert results == [
        NotFound("session", run.session_id),
        NotFound("session", "ses_unknown"),
        Stopped(run.session_id, run.run_id, "stopped"),
    ]
    assert db.do(stop_runs, [StopRun(bob, run.run_id)]) == [NotFound("run", run.run_id)]
    assert db.do(stop_runs, [StopRun(ADMIN, "run_unknown")]) == [NotFound("run", "run_unknown")]


@pytest.mark.parametrize("begin", [lambda db: db.start(), claimed, running, idle])
def test_same_session_twice_in_one_batch_is_stopped_once(db: DbVerbs, begin: Any) -> None:
    """Show the second item the effect of the first."""
    run = begin(db)
    first, second = db.do(stop_sessions, [StopSession(ADMIN, run.session_id)] * 2)
    assert isinstance(first, Stopped)
    assert isinstance(second, Stopped)
    assert first.status == second.status
    assert db.count("stop_commands") <= 1
    row = db.run(run.run_id)
    db.do(stop_sessions, [StopSession(ADMIN, run.session_id)] * 2)
    assert db.run(run.run_id) == row


@pytest.mark.parametrize(("left", "right"), list(product(["active", "waiting"], repeat=2)))
def test_two_runs_of_one_session_are_stopped_in_one_batch(db: DbVerbs, left: str, right: str) -> None:
    """Try every order, and the same run twice."""
    run = running(db)
    ids = {"active": run.run_id, "waiting": db.resume(run.session_id).run_id}
    results = db.do(stop_runs, [StopRun(ADMIN, ids[left]), StopRun(ADMIN, ids[right])])
    assert all(isinstance(result, Stopped) for result in results)
    stopped = {"active": "stopping", "waiting": "stopped"}
    wanted = {left, right} | ({"waiting"} if "active" in {left, right} else set())
    assert {name: db.run(ids[name]).status for name in wanted} == {name: stopped[name] for name in wanted}


@pytest.mark.parametrize(
    ("status", "runner", "ends"),
    [("finished", "own", True), ("failed", "own", True), ("stopped", "own", True), ("finished", "other", False)],
)
def test_idle_session_ends_by_report_of_its_runner(db: DbVerbs, status: str, runner: str, *, ends: bool) -> None:
    """Accept and ignore that of another runner, and a repeat."""
    run, other = idle(db), db.runner()
    runner_id = run.runner_id if runner == "own" else other.runner_id
    assert runner_id is not None
    assert session_report(db, runner_id, run.session_id, status) is ends
    assert db.session(run.session_id).status == (status if ends else "idle")
    assert session_report(db, runner_id, run.session_id, status) is False


def test_report_about_busy_session_is_ignored(db: DbVerbs) -> None:
    """End it by the run in hand."""
    run = running(db)
    assert run.runner_id is not None
    assert session_report(db, run.runner_id, run.session_id) is False
    assert db.session(run.session_id).status == "running"
    assert session_report(db, run.runner_id, "ses_unknown") == NotFound("session", "ses_unknown")
    assert session_report(db, "lnch_unknown", run.session_id) == RunnerNotRegistered("lnch_unknown")


def test_process_that_ends_while_resume_waits_is_forgotten(db: DbVerbs) -> None:
    """Let the resume go on; if it is cancelled, the session is not idle without a process."""
    run = idle(db)
    assert run.runner_id is not None
    resumed = db.resume(run.session_id)
    assert session_report(db, run.runner_id, run.session_id) is True
    assert db.session(run.session_id).status == "pending"
    stop_run(db, resumed.run_id)
    assert db.session(run.session_id).status == "stopped"


@pytest.mark.parametrize(("first", "second"), list(product(["finished", "failed", "stopped"], repeat=2)))
def test_first_of_two_reports_about_one_session_in_one_batch_counts(db: DbVerbs, first: str, second: str) -> None:
    run = idle(db)
    assert run.runner_id is not None
    batch = [ReportSessionStatus(run.runner_id, run.session_id, status) for status in (first, second)]
    assert db.do(report_session_statuses, batch) == [True, False]
    assert db.session(run.session_id).status == first
