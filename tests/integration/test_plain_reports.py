"""Reports of the plain case: which are, and how group commit joins them with the others."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from app.writes.attempts import Attempts
from app.writes.group_commit import GroupCommit
from models.core.errors import RunnerNotRegistered, StaleClaim, Unstorable
from models.core.plain import NOT_PLAIN, NotPlain
from models.runs.report import Reported, ReportResult, report_runs
from models.runs.report_plain import report_plain_runs
from models.runs.reports import Report
from runtime.settings import Settings
from tests.support.batches import run as run_scenario
from tests.support.clocks import fall_silent
from tests.support.db_verbs import DbVerbs
from tests.support.reports import accepted, claimed, history, report, running


def plainly(db: DbVerbs, *reports: Report) -> list[ReportResult | NotPlain]:
    return db.do(report_plain_runs, reports)


def test_own_token_alone_is_plain(db: DbVerbs) -> None:
    run = running(db)
    refused = [report(run, "completed", token="of another claim"), report(run, "completed", token=None)]
    for one in refused:
        assert plainly(db, one) == [NOT_PLAIN]
    assert db.run(run.run_id).status == "running"
    assert plainly(db, report(run, "completed")) == [Reported(run.run_id, run.session_id, "completed", changed=True)]


def test_report_of_silent_runner_is_not_plain(db: DbVerbs) -> None:
    """Leave its refusal to the verb, after which nothing has changed."""
    runner = db.runner()
    run = running(db, runner)
    fall_silent(db, runner, 30 * 86_400)
    assert plainly(db, report(run, "completed")) == [NOT_PLAIN]
    assert db.do(report_runs, [report(run, "completed")]) == [RunnerNotRegistered(runner.runner_id)]
    assert db.run(run.run_id).status == "running"


def test_repeat_of_plain_report_is_answered_by_the_verb(db: DbVerbs) -> None:
    """Count nothing twice after a COMMIT whose answer was lost."""
    run = running(db)
    plainly(db, report(run, "failed", error="boom"))
    row, told = db.run(run.run_id), history(db, run.session_id)
    assert plainly(db, report(run, "failed", error="boom")) == [NOT_PLAIN]
    repeat = accepted(db, run, "failed", error="boom")
    assert (repeat.changed, db.run(run.run_id), history(db, run.session_id)) == (False, row, told)


def test_reports_of_one_session_are_left_to_the_verb(db: DbVerbs) -> None:
    """Apply a start and an end of one batch in their order."""
    alone, both = running(db), claimed(db)
    db.rows("UPDATE runners SET sends_tokens = true")
    results = plainly(db, report(both, "started"), report(alone, "completed"), report(both, "completed"))
    assert [result is NOT_PLAIN for result in results] == [True, False, True]


def test_batch_is_answered_in_item_order(db: DbVerbs, settings: Settings) -> None:
    """Fail a run id that Postgres cannot store alone, by bisection."""
    runs = [running(db) for _ in range(4)]
    bad = Report("run\0", str(runs[0].runner_id), report(runs[0], "completed").outcome, "token")
    results: list[Any] = []

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, report_runs, plain=report_plain_runs)
        stale = report(runs[1], "completed", token="of another claim")
        first = [report(runs[0], "completed"), stale, report(runs[2], "failed", error="NUL \0")]
        results.extend(await queue.many((item, 0) for item in first))
        results.extend(
            await queue.many((item, 0) for item in [report(runs[1], "stopped"), bad, report(runs[3], "failed")])
        )

    run_scenario(settings, scenario)
    statuses = [getattr(result, "status", None) for result in results]
    assert statuses == ["completed", "running", "failed", "stopped", None, "failed"]
    assert (type(results[1]), type(results[4])) == (StaleClaim, Unstorable)
    assert [db.run(run.run_id).status for run in runs] == ["completed", "stopped", "failed", "failed"]
