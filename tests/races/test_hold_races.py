"""Race holds with everything that makes runs ready or claims them: in the end readiness agrees with the holds."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from models.claims.polls import answer_polls
from models.core.callers import ADMIN
from models.runs.holds import HoldRun, RemoveHold, SetHold, hold_runs, remove_holds, set_holds, transactions_of_holds
from models.runs.report import report_runs
from models.runs.report_plain import report_plain_runs
from models.runs.submit import submit_runs
from models.runs.submit_plain import submit_plain
from runtime.postgres import autocommit
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support import holds
from tests.support.db_verbs import DbVerbs, poll_request, start_submission
from tests.support.holds import agrees, settle
from tests.support.plain_first import PlainFirst
from tests.support.plain_submissions import add_profile
from tests.support.reports import report, running
from tests.support.runner_drains import our_engine
from tests.support.simultaneous_calls import call_together, verb_call

FORMS = (submit_runs, submit_plain)


@pytest.fixture
def ours(settings: Settings) -> Iterator[DbVerbs]:
    with our_engine(settings) as engine:
        yield DbVerbs(engine)


class Looks:
    """Count the looks for open transactions of a request."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, conn: Connection) -> frozenset[str]:
        self.number += 1
        return transactions_of_holds(conn)


def change(db: DbVerbs, *, removes: bool) -> None:
    if removes:
        db.do(remove_holds, [RemoveHold(ADMIN, "all")])
    else:
        db.do(set_holds, [SetHold(ADMIN, "all", everything=True)])


@pytest.mark.parametrize("removes", [False, True], ids=["set", "remove"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_submission_that_began_before_a_hold_agrees_with_it(
    db: DbVerbs, ours: DbVerbs, monkeypatch: pytest.MonkeyPatch, form: Callable[..., Any], *, removes: bool
) -> None:
    """Commit the change while a submission that has read the holds before is open: the request waits for it."""
    add_profile(db)
    if removes:
        change(db, removes=False)
    submission = start_submission()
    with ours.engine.connect() as open_one, ThreadPoolExecutor(1) as requests:
        with open_one.begin() as transaction:
            (result,) = form(open_one, [submission])
            if form is submit_plain and removes:
                # Left to the verb, by the hold that it sees.
                (result,) = submit_runs(open_one, [submission])
            assert getattr(result, "run_id", None) == submission.run_id
            change(db, removes=removes)
            looks = Looks()
            monkeypatch.setattr(holds, "transactions_of_holds", looks)
            request = requests.submit(settle, db)
            eventually(lambda: looks.number > 1 or request.done(), what="a request that waits")
            transaction.commit()
        request.result(60)
    assert db.run(submission.run_id).ready == removes
    agrees(db)


@pytest.mark.parametrize("removes", [False, True], ids=["set", "remove"])
def test_many_submissions_and_reports_agree_with_a_hold(db: DbVerbs, ours: DbVerbs, *, removes: bool) -> None:
    add_profile(db)
    runs = [running(db) for _ in range(8)]
    for run in runs:
        db.resume(run.session_id)
    if removes:
        change(db, removes=False)
    submit, end = PlainFirst(submit_plain, submit_runs), PlainFirst(report_plain_runs, report_runs)
    calls: list[Callable[[], Any]] = [verb_call(ours, submit, start_submission()) for _ in range(8)]
    calls += [verb_call(ours, end, report(run, "completed")) for run in runs]

    def request() -> None:
        change(ours, removes=removes)
        settle(ours)

    calls.insert(8, request)
    call_together(calls)
    agrees(db)
    assert db.count("runs", "ready") == (16 if removes else 0)


@pytest.mark.parametrize("crowd", [2, 8])
def test_hold_of_a_run_against_claims_and_the_end_before_it(db: DbVerbs, crowd: int) -> None:
    """A run that is claimed goes on; one that is not is never claimed after the hold."""
    add_profile(db)
    first = running(db)
    behind, alone = db.resume(first.session_id), db.start()
    runners = [db.runner() for _ in range(crowd)]
    end = PlainFirst(report_plain_runs, report_runs)
    items = [HoldRun(ADMIN, run_id) for run_id in (behind.run_id, alone.run_id)]
    calls: list[Callable[[], Any]] = [verb_call(db, answer_polls, poll_request(runner)) for runner in runners]
    calls += [verb_call(db, hold_runs, *items), verb_call(db, end, report(first, "completed"))]
    call_together(calls)
    agrees(db)
    had = db.count("runs", "status = 'claimed'")
    assert not any(db.claim(db.runner(), wanted=5) for _ in range(2))
    releases = [HoldRun(ADMIN, item.run_id, held=False) for item in items]
    call_together([verb_call(db, hold_runs, *releases), verb_call(db, hold_runs, *releases[::-1])])
    agrees(db)
    assert db.count("holds") == 0
    assert db.count("runs", "ready") == 2 - had


def test_request_waits_for_open_transactions_only(db: DbVerbs, ours: DbVerbs, engine: Engine) -> None:
    """A dump, which reads all tables for hours, makes no run ready."""
    with autocommit(engine) as dump:
        dump.exec_driver_sql("BEGIN")
        dump.exec_driver_sql("SELECT count(*) FROM holds")
        change(ours, removes=False)
        settle(ours)
        dump.exec_driver_sql("ROLLBACK")
    eventually(lambda: db.count("holds") == 1, what="the hold")
