"""Sessions resumed at another runner while their process is idle: it is told to end, and nothing waits for it."""

from models.claims.claim import Ask
from models.claims.matching import Demands
from models.core.ids import new_id
from models.sessions.bind import ReportSessionStatus, report_session_statuses
from models.state.runs import Run
from tests.support.clocks import counts, fall_silent, pass_time
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.reports import accepted, idle, stop

LOST = 999


def moved(db: DbVerbs, *, started: bool = True) -> tuple[Runner, Runner, Run]:
    """Return a session with an idle process at one runner, and the run that resumes it at another one."""
    old, new = db.runner(hostname="old"), db.runner(hostname="new")
    first = idle(db, old, additional_demands=Demands(hostname="old"))
    db.rows("UPDATE sessions SET hostname = 'old', executor_profile = 'profile'")
    resumed = db.resume(first.session_id, additional_demands=Demands(hostname="new"))
    (run,) = db.claim(new)
    assert run.run_id == resumed.run_id
    if started:
        accepted(db, run, "started")
    return old, new, run


def stops_told(db: DbVerbs, runner: Runner) -> list[str]:
    (answer,) = db.answer(Ask(new_id("poll_"), runner.runner_id, 1, "web-1"))
    return answer.stop_sessions


def test_former_runner_is_told_to_end_its_idle_process(db: DbVerbs) -> None:
    """Tell it at the start elsewhere; its end report closes the stop and does not change the session."""
    old, new, run = moved(db)
    assert db.session(run.session_id).status == "running"
    assert stops_told(db, new) == []
    assert stops_told(db, old) == [run.session_id]
    said = ReportSessionStatus(old.runner_id, run.session_id, "stopped")
    assert db.do(report_session_statuses, [said]) == [False]
    assert db.count("stop_commands") == 0
    session = db.session(run.session_id)
    assert (session.status, session.runner_id) == ("running", new.runner_id)


def test_former_process_is_left_alone_until_start_elsewhere(db: DbVerbs) -> None:
    """Wait, since the claim may never start."""
    old, _, run = moved(db, started=False)
    assert db.count("stop_commands") == 0
    assert db.session(run.session_id).runner_id == old.runner_id


def test_end_report_without_start_elsewhere_ends_former_process_too(db: DbVerbs) -> None:
    """Accept the order of deployed runners, which may report an end at once."""
    old, _, run = moved(db, started=False)
    accepted(db, run, "failed", error="no")
    assert stops_told(db, old) == [run.session_id]


def test_next_turn_does_not_wait_for_former_process(db: DbVerbs) -> None:
    """Go on, since that may be on a machine that is gone and not lost yet."""
    _, new, run = moved(db)
    accepted(db, run, "completed", session_status="idle")
    assert db.session(run.session_id).status == "idle"
    again = db.resume(run.session_id, additional_demands=Demands(hostname="new"))
    assert db.session(run.session_id).status == "pending"
    assert [claimed.run_id for claimed in db.claim(new)] == [again.run_id]
    assert db.count("stop_commands") == 1


def test_superseded_stop_ends_with_its_deadline_or_runner(db: DbVerbs) -> None:
    """Let the live process elsewhere go on."""
    _, new, run = moved(db)
    accepted(db, run, "completed", session_status="idle")
    pass_time(db, "stop_commands", "deadline_at", 3600)
    assert counts(db) == {"superseded stops dropped": 1}
    session = db.session(run.session_id)
    assert (session.status, session.runner_id) == ("idle", new.runner_id)


def test_loss_of_former_runner_does_not_change_session(db: DbVerbs) -> None:
    old, _, run = moved(db)
    fall_silent(db, old, LOST)
    assert counts(db) == {"runners lost": 1, "superseded stops dropped": 1}
    assert db.session(run.session_id).status == "running"


def test_lost_former_runner_is_told_nothing(db: DbVerbs) -> None:
    old, _, run = moved(db, started=False)
    fall_silent(db, old, LOST)
    assert counts(db)["runners lost"] == 1
    accepted(db, run, "started")
    assert db.count("stop_commands") == 0


def test_stop_of_session_replaces_stop_of_former_process(db: DbVerbs) -> None:
    """Stop the session's current process."""
    old, new, run = moved(db)
    assert stop(db, run.session_id).status == "stopping"
    assert stops_told(db, old) == []
    assert stops_told(db, new) == [run.session_id]
    accepted(db, run, "stopped")
    assert (db.session(run.session_id).status, db.count("stop_commands")) == ("stopped", 0)


def test_session_that_returns_is_not_stopped_by_former_order(db: DbVerbs) -> None:
    """Close the stop of the process that it has again, and open one for the other."""
    old, new, run = moved(db)
    accepted(db, run, "completed", session_status="idle")
    db.resume(run.session_id, additional_demands=Demands(hostname="old"))
    db.rows("UPDATE stop_commands SET sent_at = now()")
    (back,) = db.claim(old)
    accepted(db, back, "started")
    rows = db.rows("SELECT runner_id, superseded FROM stop_commands")
    assert [tuple(row) for row in rows] == [(new.runner_id, True)]
    db.rows("UPDATE stop_commands SET sent_at = NULL")
    assert stops_told(db, old) == []
    assert stops_told(db, new) == [run.session_id]
