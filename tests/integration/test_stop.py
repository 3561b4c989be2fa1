"""Stops on a real database: what is cancelled, what is told, what ends them."""

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
from tests.support.truth import Truth


def session_report(truth: Truth, runner_id: str, session_id: str, status: str = "finished") -> Any:
    (result,) = truth.do(report_session_statuses, [ReportSessionStatus(runner_id, session_id, status)])
    return result


def test_a_pending_run_is_cancelled_with_its_session(truth: Truth) -> None:
    """Nobody can claim it afterwards; there is nothing to tell anybody, and no error."""
    run = truth.start()
    assert stop(truth, run.session_id) == Stopped(run.session_id, run.run_id, "stopped")
    row = truth.run(run.run_id)
    assert (row.status, row.error, row.attempt, row.ready) == ("stopped", None, 0, False)
    assert row.completed_at is not None
    assert (truth.session(run.session_id).status, truth.count("stop_commands")) == ("stopped", 0)
    assert truth.claim(truth.runner()) == []


def test_a_delayed_run_is_cancelled_too(truth: Truth) -> None:
    """All runs of the session are meant, in whatever state they wait."""
    first = truth.start(delay_seconds=3600)
    second = truth.resume(first.session_id)
    stop(truth, first.session_id)
    assert {truth.run(one.run_id).status for one in (first, second)} == {"stopped"}


def test_an_undelivered_claim_is_cancelled_and_not_handed_out(truth: Truth) -> None:
    """The web that holds the poll asks before it answers."""
    runner = truth.runner()
    ask = truth.park(runner)
    submitted = truth.start()
    truth.dispatch()
    run_id = parked_run(truth, runner, ask)
    assert stop(truth, submitted.session_id).status == "stopped"
    token = truth.run(run_id).claim_token
    assert truth.do(confirm_deliveries, [Claim(run_id, token)]) == [StaleClaim(run_id, "stopped")]
    assert (truth.run(run_id).status, truth.count("stop_commands")) == ("stopped", 0)


@pytest.mark.parametrize("begin", [claimed, running])
def test_a_run_with_a_process_is_told_to_stop(truth: Truth, begin: Any) -> None:
    """On its runner's next poll; the session is stopping until the runner says more."""
    run: Run = begin(truth)
    runner = truth.rows("SELECT runner_id, registration FROM runs WHERE run_id = :r", r=run.run_id)[0]
    assert stop(truth, run.session_id) == Stopped(run.session_id, run.run_id, "stopping")
    row = truth.run(run.run_id)
    assert (row.status, row.stop_cause, row.error) == ("stopping", "stop", None)
    assert truth.session(run.session_id).status == "stopping"
    (command,) = truth.rows("SELECT *, deadline_at - created_at AS after FROM stop_commands")
    assert (command.runner_id, command.registration, command.run_id) == (
        runner.runner_id,
        runner.registration,
        run.run_id,
    )
    assert round(command.after.total_seconds()) == 180
    assert round((row.run_deadline_at - command.created_at).total_seconds()) == 180
    accepted(truth, run, "stopped")
    assert (truth.session(run.session_id).status, truth.count("stop_commands")) == ("stopped", 0)


def test_the_stop_of_a_runner_that_beats_often_is_shorter(truth: Truth) -> None:
    """Three of its heartbeats, at least the configured time."""
    run = running(truth, truth.runner(told_interval=10))
    truth.do(stop_sessions, [StopSession(ADMIN, run.session_id)], limits=Limits(stop_timeout=45))
    (command,) = truth.rows("SELECT deadline_at - created_at AS after FROM stop_commands")
    assert round(command.after.total_seconds()) == 45


def test_stopping_twice_is_stopping_once(truth: Truth) -> None:
    """The answer says how it stands; the deadline is not put off and nobody is told anew."""
    run = running(truth)
    stop(truth, run.session_id)
    before, events = truth.rows("SELECT * FROM stop_commands"), truth.count("events")
    row = truth.run(run.run_id)
    assert stop(truth, run.session_id) == Stopped(run.session_id, run.run_id, "stopping")
    assert (truth.rows("SELECT * FROM stop_commands"), truth.count("events")) == (before, events)
    assert truth.run(run.run_id) == row
    accepted(truth, run, "stopped")
    assert stop(truth, run.session_id) == Stopped(run.session_id, None, "stopped", "Session already stopped")


@pytest.mark.parametrize("outcome", ["completed", "failed", "stopped"])
def test_an_ended_session_says_what_it_is(truth: Truth, outcome: str) -> None:
    """A stop that comes too late is no error."""
    run = running(truth)
    accepted(truth, run, outcome)
    status = truth.session(run.session_id).status
    assert stop(truth, run.session_id) == Stopped(run.session_id, None, status, f"Session already {status}")


def test_an_idle_process_is_told_to_stop(truth: Truth) -> None:
    """There is no run to hold the stop; its runner's word ends it."""
    run = idle(truth)
    assert run.runner_id is not None
    assert stop(truth, run.session_id) == Stopped(run.session_id, None, "stopping")
    assert truth.session(run.session_id).status == "stopping"
    assert session_report(truth, run.runner_id, run.session_id, "stopped") is True
    session = truth.session(run.session_id)
    assert (session.status, session.runner_id, truth.count("stop_commands")) == ("stopped", None, 0)
    assert session_statuses(truth, run.session_id) == ["pending", "running", "idle", "stopping", "stopped"]


def test_an_idle_process_that_its_runner_reports_by_its_last_run_is_stopped(truth: Truth) -> None:
    """Even though the report is refused: the run had ended."""
    run = idle(truth)
    stop(truth, run.session_id)
    assert say(truth, report(run, "stopped", token=None)) == [InvalidTransition(run.run_id, "completed", "stopped")]
    session = truth.session(run.session_id)
    assert (session.status, session.runner_id, truth.count("stop_commands")) == ("stopped", None, 0)


def test_the_repeat_of_a_turns_end_does_not_answer_a_stop(truth: Truth) -> None:
    """It says that the process lives; the process is what is to be stopped."""
    run = idle(truth)
    stop(truth, run.session_id)
    assert accepted(truth, run, "completed", session_status="idle").changed is False
    assert (truth.session(run.session_id).status, truth.count("stop_commands")) == ("stopping", 1)


def test_a_turn_that_ends_while_its_session_is_stopped_leaves_the_stop_open(truth: Truth) -> None:
    """Its process lives on, and is still to be stopped."""
    run = running(truth)
    assert run.runner_id is not None
    stop(truth, run.session_id)
    accepted(truth, run, "completed", session_status="idle")
    session = truth.session(run.session_id)
    assert (session.status, session.runner_id, truth.count("stop_commands")) == ("stopping", run.runner_id, 1)
    assert session_report(truth, run.runner_id, run.session_id, "stopped") is True
    assert truth.session(run.session_id).status == "stopped"


def test_no_run_is_claimed_while_a_stop_is_open(truth: Truth) -> None:
    """Deployed runners know sessions only: they would stop the new one."""
    run = running(truth)
    stop(truth, run.session_id)
    resumed = truth.resume(run.session_id)
    assert truth.run(resumed.run_id).ready is False
    assert truth.claim(truth.runner()) == []
    accepted(truth, run, "stopped")
    assert truth.run(resumed.run_id).ready is True
    assert truth.session(run.session_id).status == "pending"


def test_a_second_stop_cancels_what_was_submitted_since_the_first(truth: Truth) -> None:
    """And the first goes on."""
    run = running(truth)
    stop(truth, run.session_id)
    resumed = truth.resume(run.session_id)
    assert stop(truth, run.session_id).status == "stopping"
    assert [truth.run(one).status for one in (run.run_id, resumed.run_id)] == ["stopping", "stopped"]


def test_a_cancelled_resume_returns_a_session_with_a_live_process_to_idle(truth: Truth) -> None:
    """Only the run was meant."""
    run = idle(truth)
    resumed = truth.resume(run.session_id)
    assert truth.session(run.session_id).status == "pending"
    assert stop_run(truth, resumed.run_id) == Stopped(run.session_id, resumed.run_id, "stopped")
    assert (truth.session(run.session_id).status, truth.count("stop_commands")) == ("idle", 0)


def test_stopping_the_active_run_stops_its_session(truth: Truth) -> None:
    """What waits behind it is cancelled; a waiting one stopped alone leaves it running."""
    run = running(truth)
    second, third = truth.resume(run.session_id), truth.resume(run.session_id)
    assert stop_run(truth, second.run_id).status == "stopped"
    assert [truth.run(one).status for one in (run.run_id, third.run_id)] == ["running", "pending"]
    assert stop_run(truth, run.run_id) == Stopped(run.session_id, run.run_id, "stopping")
    assert [truth.run(one).status for one in (run.run_id, third.run_id)] == ["stopping", "stopped"]
    assert truth.session(run.session_id).status == "stopping"
    accepted(truth, run, "stopped")
    assert stop_run(truth, run.run_id) == Stopped(run.session_id, run.run_id, "stopped", "Run already stopped")


def test_a_cancelled_run_makes_the_next_one_ready(truth: Truth) -> None:
    """It no longer waits behind anything."""
    first = truth.start(delay_seconds=3600)
    second = truth.resume(first.session_id)
    assert truth.run(second.run_id).ready is False
    stop_run(truth, first.run_id)
    assert truth.run(second.run_id).ready is True
    assert truth.session(first.session_id).status == "pending"


def test_a_stopped_run_that_timed_out_does_not_come_back(truth: Truth) -> None:
    """The stop is the stronger word."""
    run = running(truth, max_attempts=3, run_timeout_seconds=5)
    time_out(truth, run.run_id)
    deadline = truth.run(run.run_id).run_deadline_at
    stop(truth, run.session_id)
    assert truth.run(run.run_id).run_deadline_at == deadline
    accepted(truth, run, "stopped")
    assert truth.run(run.run_id).status == "stopped"


def test_a_start_that_crosses_a_stop_is_accepted_and_changes_nothing(truth: Truth) -> None:
    """Its runner hears of the stop on its next poll."""
    run = claimed(truth)
    stop(truth, run.session_id)
    assert accepted(truth, run, "started").changed is False
    assert truth.run(run.run_id).status == "stopping"
    accepted(truth, run, "stopped")
    assert (truth.run(run.run_id).status, truth.run(run.run_id).attempt) == ("stopped", 1)


def test_one_owner_cannot_stop_what_is_anothers(truth: Truth) -> None:
    """It is not found, like what is not there."""
    alice, bob = Caller(Role.USER, "alice"), Caller(Role.USER, "bob")
    run = truth.start(caller=alice)
    results = truth.do(
        stop_sessions,
        [StopSession(bob, run.session_id), StopSession(ADMIN, "ses_unknown"), StopSession(alice, run.session_id)],
    )
    assert results == [
        NotFound("session", run.session_id),
        NotFound("session", "ses_unknown"),
        Stopped(run.session_id, run.run_id, "stopped"),
    ]
    assert truth.do(stop_runs, [StopRun(bob, run.run_id)]) == [NotFound("run", run.run_id)]
    assert truth.do(stop_runs, [StopRun(ADMIN, "run_unknown")]) == [NotFound("run", "run_unknown")]


@pytest.mark.parametrize("begin", [lambda truth: truth.start(), claimed, running, idle])
def test_the_same_session_twice_in_one_batch_is_stopped_once(truth: Truth, begin: Any) -> None:
    """The second item sees what the first has done."""
    run = begin(truth)
    first, second = truth.do(stop_sessions, [StopSession(ADMIN, run.session_id)] * 2)
    assert isinstance(first, Stopped)
    assert isinstance(second, Stopped)
    assert first.status == second.status
    assert truth.count("stop_commands") <= 1
    row = truth.run(run.run_id)
    truth.do(stop_sessions, [StopSession(ADMIN, run.session_id)] * 2)
    assert truth.run(run.run_id) == row


@pytest.mark.parametrize(("left", "right"), list(product(["active", "waiting"], repeat=2)))
def test_two_runs_of_one_session_are_stopped_in_one_batch(truth: Truth, left: str, right: str) -> None:
    """In any order, also the same run twice."""
    run = running(truth)
    ids = {"active": run.run_id, "waiting": truth.resume(run.session_id).run_id}
    results = truth.do(stop_runs, [StopRun(ADMIN, ids[left]), StopRun(ADMIN, ids[right])])
    assert all(isinstance(result, Stopped) for result in results)
    stopped = {"active": "stopping", "waiting": "stopped"}
    wanted = {left, right} | ({"waiting"} if "active" in {left, right} else set())
    assert {name: truth.run(ids[name]).status for name in wanted} == {name: stopped[name] for name in wanted}


@pytest.mark.parametrize(
    ("status", "runner", "effect"),
    [("finished", "own", True), ("failed", "own", True), ("stopped", "own", True), ("finished", "other", False)],
)
def test_an_idle_session_ends_by_the_word_of_its_runner(
    truth: Truth, status: str, runner: str, *, effect: bool
) -> None:
    """Another runner's is accepted and ignored; so is the same one's again."""
    run, other = idle(truth), truth.runner()
    runner_id = run.runner_id if runner == "own" else other.runner_id
    assert runner_id is not None
    assert session_report(truth, runner_id, run.session_id, status) is effect
    assert truth.session(run.session_id).status == (status if effect else "idle")
    assert session_report(truth, runner_id, run.session_id, status) is False


def test_the_status_of_a_busy_session_is_not_its_runners_to_end(truth: Truth) -> None:
    """The run in hand says how it ends."""
    run = running(truth)
    assert run.runner_id is not None
    assert session_report(truth, run.runner_id, run.session_id) is False
    assert truth.session(run.session_id).status == "running"
    assert session_report(truth, run.runner_id, "ses_unknown") == NotFound("session", "ses_unknown")
    assert session_report(truth, "lnch_unknown", run.session_id) == RunnerNotRegistered("lnch_unknown")


def test_a_process_that_ends_while_a_resume_waits_is_not_waited_for(truth: Truth) -> None:
    """The resume goes on; cancelled, it does not leave the session idle with nobody."""
    run = idle(truth)
    assert run.runner_id is not None
    resumed = truth.resume(run.session_id)
    assert session_report(truth, run.runner_id, run.session_id) is True
    assert truth.session(run.session_id).status == "pending"
    stop_run(truth, resumed.run_id)
    assert truth.session(run.session_id).status == "stopped"


@pytest.mark.parametrize(("first", "second"), list(product(["finished", "failed", "stopped"], repeat=2)))
def test_two_words_about_one_session_in_one_batch(truth: Truth, first: str, second: str) -> None:
    """The first one counts."""
    run = idle(truth)
    assert run.runner_id is not None
    batch = [ReportSessionStatus(run.runner_id, run.session_id, status) for status in (first, second)]
    assert truth.do(report_session_statuses, batch) == [True, False]
    assert truth.session(run.session_id).status == first
