"""Sessions that are resumed at another runner while their process is idle: it is told to end, and nothing waits for it."""

from models.claims.claim import Ask
from models.claims.matching import Demands
from models.core.ids import new_id
from models.sessions.bind import ReportSessionStatus, report_session_statuses
from models.state.runs import Run
from tests.support.clocks import counts, fall_silent, pass_time
from tests.support.reports import accepted, idle, stop
from tests.support.truth import Runner, Truth

LOST = 999


def moved(truth: Truth, *, started: bool = True) -> tuple[Runner, Runner, Run]:
    """A session with an idle process at one runner, and the run that resumes it at another one."""
    old, new = truth.runner(hostname="old"), truth.runner(hostname="new")
    first = idle(truth, old, additional_demands=Demands(hostname="old"))
    truth.rows("UPDATE sessions SET hostname = 'old', executor_profile = 'profile'")
    resumed = truth.resume(first.session_id, additional_demands=Demands(hostname="new"))
    (run,) = truth.claim(new)
    assert run.run_id == resumed.run_id
    if started:
        accepted(truth, run, "started")
    return old, new, run


def stops_told(truth: Truth, runner: Runner) -> list[str]:
    (answer,) = truth.answer(Ask(new_id("poll_"), runner.runner_id, 1, "web-1"))
    return answer.stop_sessions


def test_former_runner_is_told_to_end_its_idle_process(truth: Truth) -> None:
    """At the start elsewhere, once it reports the end the stop is gone; the session knows nothing of it."""
    old, new, run = moved(truth)
    assert truth.session(run.session_id).status == "running"
    assert stops_told(truth, new) == []
    assert stops_told(truth, old) == [run.session_id]
    said = ReportSessionStatus(old.runner_id, run.session_id, "stopped")
    assert truth.do(report_session_statuses, [said]) == [False]
    assert truth.count("stop_commands") == 0
    session = truth.session(run.session_id)
    assert (session.status, session.runner_id) == ("running", new.runner_id)


def test_former_process_is_left_alone_until_the_start_elsewhere(truth: Truth) -> None:
    """A claim may come to nothing."""
    old, _, run = moved(truth, started=False)
    assert truth.count("stop_commands") == 0
    assert truth.session(run.session_id).runner_id == old.runner_id


def test_end_without_a_start_elsewhere_ends_the_former_process_too(truth: Truth) -> None:
    """Deployed runners may report an end at once."""
    old, _, run = moved(truth, started=False)
    accepted(truth, run, "failed", error="no")
    assert stops_told(truth, old) == [run.session_id]


def test_next_turn_does_not_wait_for_the_former_process(truth: Truth) -> None:
    """It may be on a machine that is gone, and not lost yet."""
    _, new, run = moved(truth)
    accepted(truth, run, "completed", session_status="idle")
    assert truth.session(run.session_id).status == "idle"
    again = truth.resume(run.session_id, additional_demands=Demands(hostname="new"))
    assert truth.session(run.session_id).status == "pending"
    assert [one.run_id for one in truth.claim(new)] == [again.run_id]
    assert truth.count("stop_commands") == 1


def test_superseded_stop_ends_with_its_time_or_its_runner(truth: Truth) -> None:
    """The live process elsewhere goes on."""
    _, new, run = moved(truth)
    accepted(truth, run, "completed", session_status="idle")
    pass_time(truth, "stop_commands", "deadline_at", 3600)
    assert counts(truth) == {"superseded stops dropped": 1}
    session = truth.session(run.session_id)
    assert (session.status, session.runner_id) == ("idle", new.runner_id)


def test_loss_of_the_former_runner_ends_nothing_of_the_session(truth: Truth) -> None:
    """Its process is none of the session's any more."""
    old, _, run = moved(truth)
    fall_silent(truth, old, LOST)
    assert counts(truth) == {"runners lost": 1, "superseded stops dropped": 1}
    assert truth.session(run.session_id).status == "running"


def test_lost_former_runner_is_told_nothing(truth: Truth) -> None:
    """It has no process by now."""
    old, _, run = moved(truth, started=False)
    fall_silent(truth, old, LOST)
    assert counts(truth)["runners lost"] == 1
    accepted(truth, run, "started")
    assert truth.count("stop_commands") == 0


def test_stop_of_the_session_replaces_that_of_its_former_process(truth: Truth) -> None:
    """Whoever stops it means where it lives."""
    old, new, run = moved(truth)
    assert stop(truth, run.session_id).status == "stopping"
    assert stops_told(truth, old) == []
    assert stops_told(truth, new) == [run.session_id]
    accepted(truth, run, "stopped")
    assert (truth.session(run.session_id).status, truth.count("stop_commands")) == ("stopped", 0)


def test_session_that_comes_back_is_not_stopped_by_what_its_first_runner_was_told(truth: Truth) -> None:
    """The stop of the process that it has again is closed, that of the other one opened."""
    old, new, run = moved(truth)
    accepted(truth, run, "completed", session_status="idle")
    truth.resume(run.session_id, additional_demands=Demands(hostname="old"))
    truth.rows("UPDATE stop_commands SET sent_at = now()")
    (back,) = truth.claim(old)
    accepted(truth, back, "started")
    rows = truth.rows("SELECT runner_id, superseded FROM stop_commands")
    assert [tuple(row) for row in rows] == [(new.runner_id, True)]
    truth.rows("UPDATE stop_commands SET sent_at = NULL")
    assert stops_told(truth, old) == []
    assert stops_told(truth, new) == [run.session_id]
