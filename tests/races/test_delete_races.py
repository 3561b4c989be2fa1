"""Race deletes against everything that may revive a session at the same moment."""

import pytest

from models.claims.polls import answer_polls
from models.core.callers import ADMIN
from models.core.errors import NotFound, StopSessionFirst
from models.runs.delete import Deleted, DeleteSession, delete_sessions
from models.runs.report import report_runs
from models.runs.submission import Submitted
from models.runs.submit import submit_runs
from tests.support.db_verbs import DbVerbs, poll_request, resume_submission, start_submission
from tests.support.reports import accepted, report, running
from tests.support.simultaneous_calls import call_together, verb_call

CROWDS = [2, 8, 32]


@pytest.mark.parametrize("crowd", CROWDS)
def test_one_of_many_deletes_removes_session(db: DbVerbs, crowd: int) -> None:
    """The others find nothing; the end is told once."""
    session_id = db.start().session_id
    results = call_together([verb_call(db, delete_sessions, DeleteSession(ADMIN, session_id)) for _ in range(crowd)])
    assert sorted(type(result[0]).__name__ for result in results) == ["Deleted"] + ["NotFound"] * (crowd - 1)
    assert db.told_kinds(session_id).count("session_deleted") == 1


@pytest.mark.parametrize("crowd", CROWDS)
def test_delete_against_resumes_leaves_no_run_without_session(db: DbVerbs, crowd: int) -> None:
    """A resume is deleted with the session, or is not accepted."""
    run = running(db)
    accepted(db, run, "completed")
    resumes = [verb_call(db, submit_runs, resume_submission(run.session_id)) for _ in range(crowd)]
    results = call_together([*resumes, verb_call(db, delete_sessions, DeleteSession(ADMIN, run.session_id))])
    deleted = results[-1][0]
    assert isinstance(deleted, Deleted)
    submitted = [result[0] for result in results[:-1] if isinstance(result[0], Submitted)]
    assert deleted.runs_count == 1 + len(submitted)
    assert all(isinstance(result[0], Submitted | NotFound) for result in results[:-1])
    assert (db.count("runs"), db.count("sessions")) == (0, 0)


@pytest.mark.parametrize("crowd", CROWDS)
def test_delete_against_claims_takes_no_run_from_its_runner(db: DbVerbs, crowd: int) -> None:
    submitted = db.start()
    claims = [verb_call(db, answer_polls, poll_request(db.runner())) for _ in range(crowd)]
    results = call_together([*claims, verb_call(db, delete_sessions, DeleteSession(ADMIN, submitted.session_id))])
    given = [run for answers in results[:-1] for run in answers[0].runs]
    assert len(given) <= 1
    assert isinstance(results[-1][0], StopSessionFirst if given else Deleted)
    assert db.count("runs", "status = 'claimed'") == len(given)


@pytest.mark.parametrize("crowd", CROWDS)
def test_delete_against_reports_of_last_run(db: DbVerbs, crowd: int) -> None:
    """Accept the end before the delete, or answer that there is no run; wait for nothing endlessly."""
    run = running(db)
    ends = [verb_call(db, report_runs, report(run, "completed")) for _ in range(crowd)]
    deletes = [verb_call(db, delete_sessions, DeleteSession(ADMIN, run.session_id)) for _ in range(crowd)]
    results = call_together([*ends, *deletes])
    deleted = [result[0] for result in results[crowd:] if isinstance(result[0], Deleted)]
    assert len(deleted) <= 1
    assert db.count("sessions") == 1 - len(deleted)


@pytest.mark.parametrize("crowd", CROWDS)
def test_delete_against_new_children_leaves_no_orphan_child(db: DbVerbs, crowd: int) -> None:
    """A child becomes a root, or its parent is not found."""
    parent = db.start().session_id
    items = [start_submission(parent_session_id=parent) for _ in range(crowd)]
    calls = [verb_call(db, submit_runs, item) for item in items]
    results = call_together([*calls, verb_call(db, delete_sessions, DeleteSession(ADMIN, parent))])
    born = sum(isinstance(result[0], Submitted) for result in results[:-1])
    assert isinstance(results[-1][0], Deleted)
    assert db.count("sessions") == born
    assert db.count("sessions", "parent_session_id IS NOT NULL") == 0
