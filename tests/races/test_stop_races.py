"""Race stops against everything that may happen to a run at the same moment."""

from collections.abc import Callable
from typing import Any

import pytest

from models.claims.polls import answer_polls
from models.core.callers import ADMIN
from models.runs.report import Reported, report_runs
from models.runs.stop import Stopped, StopRun, StopSession, stop_runs, stop_sessions
from models.runs.submit import submit_runs
from models.sessions.bind import ReportSessionStatus, report_session_statuses
from tests.support.db_verbs import DbVerbs, poll_request, resume_submission
from tests.support.reports import claimed, idle, report, running
from tests.support.simultaneous_calls import call_together, verb_call

CROWDS = [2, 8, 32]


def stops(db: DbVerbs, session_id: str, run_id: str, crowd: int) -> list[Callable[[], Any]]:
    """Send as many stops as contenders, of the session and of its run in turn."""
    both = (
        verb_call(db, stop_sessions, StopSession(ADMIN, session_id)),
        verb_call(db, stop_runs, StopRun(ADMIN, run_id)),
    )
    return [both[place % 2] for place in range(crowd)]


@pytest.mark.parametrize("crowd", CROWDS)
def test_stop_against_claims_leaves_no_runner_with_a_stopped_run(db: DbVerbs, crowd: int) -> None:
    """No runner gets the run, or its runner is told to stop it."""
    submitted = db.start()
    runners = [db.runner() for _ in range(crowd)]
    claims = [verb_call(db, answer_polls, poll_request(runner)) for runner in runners]
    results = call_together([*stops(db, submitted.session_id, submitted.run_id, crowd), *claims])
    given = [run.run_id for answers in results[crowd:] for run in answers[0].runs]
    row = db.run(submitted.run_id)
    assert len(given) <= 1
    assert row.status == ("stopping" if given else "stopped")
    assert db.count("stop_commands", "runner_id = :r", r=row.runner_id) == len(given)
    assert db.session(submitted.session_id).status == row.status
    assert all(isinstance(answer[0], Stopped) for answer in results[:crowd])


@pytest.mark.parametrize("crowd", CROWDS)
def test_stop_against_start_is_never_lost(db: DbVerbs, crowd: int) -> None:
    """In either order the run is stopping and one stop is open."""
    run = claimed(db)
    calls = [verb_call(db, report_runs, report(run, "started")) for _ in range(crowd)]
    results = call_together([*calls, *stops(db, run.session_id, run.run_id, crowd)])
    assert all(isinstance(result[0], Reported | Stopped) for result in results)
    assert db.run(run.run_id).status == "stopping"
    assert db.session(run.session_id).status == "stopping"
    assert db.count("stop_commands") == 1


@pytest.mark.parametrize("crowd", CROWDS)
@pytest.mark.parametrize("outcome", ["completed", "failed", "stopped"])
def test_stop_against_end_keeps_the_end(db: DbVerbs, crowd: int, outcome: str) -> None:
    """Leave no stop open for a process that is gone."""
    run = running(db)
    ends = [verb_call(db, report_runs, report(run, outcome)) for _ in range(crowd)]
    results = call_together([*ends, *stops(db, run.session_id, run.run_id, crowd)])
    assert sum(result[0].changed for result in results[:crowd]) == 1
    assert db.run(run.run_id).status == outcome
    session = db.session(run.session_id)
    assert (session.status, session.runner_id) == ({"completed": "finished"}.get(outcome, outcome), None)
    assert db.count("stop_commands") == 0


@pytest.mark.parametrize("crowd", CROWDS)
def test_stop_against_end_of_turn_reaches_the_live_process(db: DbVerbs, crowd: int) -> None:
    """Tell the process, which outlives its turn, to stop in either order."""
    run = running(db)
    ends = [verb_call(db, report_runs, report(run, "completed", session_status="idle")) for _ in range(crowd)]
    sessions = [verb_call(db, stop_sessions, StopSession(ADMIN, run.session_id)) for _ in range(crowd)]
    call_together([*ends, *sessions])
    assert db.run(run.run_id).status == "completed"
    assert (db.session(run.session_id).status, db.count("stop_commands")) == ("stopping", 1)


@pytest.mark.parametrize("crowd", CROWDS)
def test_stop_against_resume_cancels_it_or_lets_it_wait(db: DbVerbs, crowd: int) -> None:
    """A resume is cancelled with the rest, or waits until the stop is done."""
    run = running(db)
    items = [resume_submission(run.session_id) for _ in range(crowd)]
    resumes = [verb_call(db, submit_runs, item) for item in items]
    call_together([*resumes, verb_call(db, stop_sessions, StopSession(ADMIN, run.session_id))])
    rows = [db.run(item.run_id) for item in items]
    assert {row.status for row in rows} <= {"pending", "stopped"}
    assert not any(row.ready for row in rows)
    assert (db.run(run.run_id).status, db.session(run.session_id).status) == ("stopping", "stopping")


@pytest.mark.parametrize("crowd", CROWDS)
def test_stop_of_idle_session_against_end_of_its_process(db: DbVerbs, crowd: int) -> None:
    """Leave no stop open for a process that has ended."""
    run = idle(db)
    assert run.runner_id is not None
    word = ReportSessionStatus(run.runner_id, run.session_id, "finished")
    words = [verb_call(db, report_session_statuses, word) for _ in range(crowd)]
    sessions = [verb_call(db, stop_sessions, StopSession(ADMIN, run.session_id)) for _ in range(crowd)]
    results = call_together([*words, *sessions])
    assert sum(result[0] for result in results[:crowd]) == 1
    session = db.session(run.session_id)
    assert (session.status, session.runner_id, db.count("stop_commands")) == ("finished", None, 0)
