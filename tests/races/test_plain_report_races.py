"""Race reports of the plain case with everything else that changes their run or session."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from models.core.callers import ADMIN
from models.core.errors import NotFound, StaleClaim
from models.core.plain import NOT_PLAIN
from models.expiry.expire import expire
from models.runs.delete import Deleted, DeleteSession, delete_sessions
from models.runs.release import ReleaseRun, release_runs
from models.runs.report import Reported, report_runs
from models.runs.report_plain import report_plain_runs
from models.runs.stop import StopSession, stop_sessions
from models.runs.submit import submit_runs
from models.state.runs import Run
from tests.races import test_expiry_against_reports, test_reports_against_reports
from tests.support import db_verbs
from tests.support.clocks import due
from tests.support.contenders import steppers
from tests.support.db_verbs import DbVerbs, resume_submission
from tests.support.mutation import broken_text
from tests.support.plain_first import PlainFirst
from tests.support.reports import claimed, report, running
from tests.support.simultaneous_calls import call_together, verb_call

CROWDS = [2, 8, 32]
TOKENED = {
    "capacity, told_interval)": "capacity, told_interval, sends_tokens)",
    ":told_interval)": ":told_interval, true)",
}


def plain_first() -> PlainFirst:
    return PlainFirst(report_plain_runs, report_runs)


@pytest.fixture(autouse=True)
def _send_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db_verbs, "_REGISTER", text(broken_text(db_verbs._REGISTER.text, TOKENED)))


@pytest.mark.parametrize("crowd", CROWDS)
@pytest.mark.parametrize(
    "race",
    [
        lambda db, crowd: test_reports_against_reports.test_one_of_many_end_reports_takes_effect(db, crowd, "own"),
        test_reports_against_reports.test_start_reported_many_times_counts_once,
    ],
)
def test_reports_race_reports_alike(
    db: DbVerbs, monkeypatch: pytest.MonkeyPatch, crowd: int, race: Callable[[DbVerbs, int], None]
) -> None:
    verb = plain_first()
    monkeypatch.setattr(test_reports_against_reports, "report_runs", verb)
    race(db, crowd)
    assert verb.answered >= 1


@pytest.mark.parametrize("crowd", CROWDS)
def test_reports_of_former_claim_are_refused_alike(db: DbVerbs, monkeypatch: pytest.MonkeyPatch, crowd: int) -> None:
    monkeypatch.setattr(test_reports_against_reports, "report_runs", plain_first())
    test_reports_against_reports.test_lost_runner_cannot_finish_reassigned_run(db, crowd)


@pytest.mark.parametrize("crowd", [8])
def test_reports_race_deadlines_alike(db: DbVerbs, monkeypatch: pytest.MonkeyPatch, crowd: int) -> None:
    monkeypatch.setattr(test_expiry_against_reports, "report_runs", plain_first())
    test_expiry_against_reports.test_start_against_start_deadline(db, crowd)
    test_expiry_against_reports.test_end_against_time_limit_of_run(db, crowd, 1)
    test_expiry_against_reports.test_end_against_loss_of_runner(db, crowd, 2)


@pytest.mark.parametrize("crowd", CROWDS)
def test_batches_in_opposite_order_do_not_deadlock(db: DbVerbs, crowd: int) -> None:
    verb = plain_first()
    runs = [claimed(db) for _ in range(6)]
    batches = [[report(run, "started") for run in order] for order in (runs, runs[::-1])]
    results = call_together([verb_call(db, verb, *batches[place % 2], repeats=0) for place in range(crowd)])
    assert sum(one.changed for result in results for one in result) == 6
    assert verb.answered >= 1


def _report(db: DbVerbs, run: Run) -> tuple[Any, ...]:
    return report_runs, [report(run, "failed", error="first")]


def _stop(db: DbVerbs, run: Run) -> tuple[Any, ...]:
    return stop_sessions, [StopSession(ADMIN, run.session_id)]


def _resume(db: DbVerbs, run: Run) -> tuple[Any, ...]:
    return submit_runs, [resume_submission(run.session_id)]


def _release(db: DbVerbs, run: Run) -> tuple[Any, ...]:
    return release_runs, [ReleaseRun(run.run_id, str(run.runner_id), str(run.claim_token))]


def _expire(db: DbVerbs, run: Run) -> tuple[Any, ...]:
    due(db, run.run_id, "run_deadline_at")
    return (expire,)


RIVALS = [_report, _stop, _resume, _release, _expire]
SHOWN = """
    SELECT s.status, s.last_outcome, s.runner_id IS NULL AS is_dead, r.session_seq, r.status AS run, r.ready, r.error,
        r.attempt
    FROM sessions s JOIN runs r USING (session_id) WHERE session_id = :s ORDER BY session_seq
"""


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("following", [0, 1])
def test_report_that_waited_for_a_change_is_not_plain(db: DbVerbs, rival: Callable[..., Any], following: int) -> None:
    """End as by the verb alone: the statement reads what was committed before it began."""

    def end(verb: Callable[..., Any]) -> tuple[Any, Any]:
        run = running(db, run_timeout_seconds=60)
        for _ in range(following):
            db.resume(run.session_id)
        with steppers(db.engine, 2) as (first, second):
            first.do(*rival(db, run)).result()
            answer = second.do(verb, [report(run, "completed")])
            assert not answer.done(), "it did not wait"
            first.commit()
            (result,) = answer.result()
            second.commit()
        if verb is report_plain_runs:
            assert result is NOT_PLAIN
            (result,) = db.do(report_runs, [report(run, "completed")])
        shown = [tuple(row) for row in db.rows(SHOWN, s=run.session_id)]
        for table in ("stop_commands", "runs", "sessions"):
            db.rows(f"DELETE FROM {table}")
        return (type(result), getattr(result, "status", None), getattr(result, "changed", None)), shown

    assert end(report_plain_runs) == end(report_runs)


@pytest.mark.parametrize("rival", RIVALS)
def test_report_that_waited_for_nothing_is_plain(db: DbVerbs, rival: Callable[..., Any]) -> None:
    run = running(db, run_timeout_seconds=60)
    with steppers(db.engine, 2) as (first, second):
        first.do(*rival(db, run)).result()
        answer = second.do(report_plain_runs, [report(run, "completed")])
        assert not answer.done()
        first.rollback()
        assert answer.result() == [Reported(run.run_id, run.session_id, "completed", changed=True)]
        second.commit()
    assert (db.run(run.run_id).status, db.one("SELECT status FROM sessions")) == ("completed", "finished")


def test_resume_that_waited_for_a_plain_report_is_ready(db: DbVerbs) -> None:
    run = running(db)
    later = resume_submission(run.session_id)
    with steppers(db.engine, 2) as (first, second):
        first.do(report_plain_runs, [report(run, "completed")]).result()
        submitted = second.do(submit_runs, [later])
        assert not submitted.done()
        first.commit()
        submitted.result()
        second.commit()
    assert db.one("SELECT ready FROM runs WHERE run_id = :r", r=later.run_id)


@pytest.mark.parametrize("crowd", CROWDS)
def test_end_against_resumes_leaves_one_run_ready(db: DbVerbs, crowd: int) -> None:
    verb = plain_first()
    run = running(db)
    calls = [verb_call(db, submit_runs, resume_submission(run.session_id)) for _ in range(crowd)]
    results = call_together([*calls, verb_call(db, verb, report(run, "completed"))])
    assert results[-1][0].changed
    rows = db.rows("SELECT status, ready FROM runs ORDER BY session_seq")
    assert [(row.status, row.ready) for row in rows] == [
        ("completed", False),
        ("pending", True),
        *[("pending", False)] * (crowd - 1),
    ]


@pytest.mark.parametrize("crowd", CROWDS)
def test_end_against_deletes(db: DbVerbs, crowd: int) -> None:
    """Delete the session once it has ended, or not at all."""
    run = running(db)
    calls = [verb_call(db, delete_sessions, DeleteSession(ADMIN, run.session_id)) for _ in range(crowd)]
    *deletes, ((ended,)) = call_together([*calls, verb_call(db, plain_first(), report(run, "completed"))])
    assert isinstance(ended, Reported)
    deleted = [result for (result,) in deletes if isinstance(result, Deleted)]
    assert len(deleted) == 1 - db.count("sessions")
    assert db.count("runs") == db.count("sessions")
    (repeat,) = db.do(plain_first(), [report(run, "completed")])
    assert isinstance(repeat, NotFound if deleted else Reported)


@pytest.mark.parametrize("crowd", CROWDS)
def test_end_against_stops(db: DbVerbs, crowd: int) -> None:
    """End the run first, or as a stopping one; no stop of it stays open."""
    run = running(db)
    calls = [verb_call(db, stop_sessions, StopSession(ADMIN, run.session_id)) for _ in range(crowd)]
    results = call_together([*calls, verb_call(db, plain_first(), report(run, "completed"))])
    assert results[-1][0].changed
    assert (db.run(run.run_id).status, db.one("SELECT status FROM sessions")) == ("completed", "finished")
    assert db.count("stop_commands") == 0


@pytest.mark.parametrize("crowd", CROWDS)
def test_start_against_releases(db: DbVerbs, crowd: int) -> None:
    """Start and then return the run, or return it: then the start is refused."""
    run = claimed(db)
    calls = [
        verb_call(db, release_runs, ReleaseRun(run.run_id, str(run.runner_id), str(run.claim_token)))
        for _ in range(crowd)
    ]
    results = call_together([*calls, verb_call(db, plain_first(), report(run, "started"))])
    row = db.run(run.run_id)
    assert (row.status, row.attempt, row.claim_token) == ("pending", 0, None)
    assert isinstance(results[-1][0], Reported | StaleClaim)
