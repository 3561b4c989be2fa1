"""Retry policies: a reported failure returns the run to pending for its backoff, and every attempt stays visible."""

from typing import Any

import pytest

from models.core.callers import ADMIN
from models.core.errors import InvalidTransition, StaleClaim
from models.core.plain import NOT_PLAIN
from models.core.retries import Backoff, RetryPolicy
from models.core.statuses import Outcome
from models.explanations.explain_run import explain_run
from models.explanations.reasons import RunExplanation
from models.feed.run_timeline import RunTimeline, run_timeline
from models.feed.timeline import EventPage, list_events
from models.runs.delete import Deleted, DeleteSession, delete_sessions
from models.runs.replay import Replay, replay_runs
from models.runs.report import Reported, report_runs
from models.runs.report_plain import report_plain_runs
from models.runs.submit_plain import submit_plain
from models.state.runs import Run
from runtime.settings import Settings
from tests.support.answer_models import check_fields
from tests.support.clocks import due, tick
from tests.support.db_verbs import DbVerbs, Runner, start_submission
from tests.support.numbering import number_all
from tests.support.parents import child_of, waiting, write_result
from tests.support.plain_submissions import add_profile
from tests.support.reports import accepted, claimed, report, running, say, stop
from tests.support.web import served, until_ready

POLICY = RetryPolicy(3, Backoff(initial=60.0, factor=2.0, max=600.0, jitter=0.0))


def end_backoff(db: DbVerbs, run_id: str) -> None:
    """Let the backoff of a run pass, up to the pass of expiry that makes it ready."""
    due(db, run_id, "not_before")
    tick(db)


def again(db: DbVerbs, run: Run, runner: Runner | None = None) -> Run:
    """Return the run as its next attempt, started."""
    end_backoff(db, run.run_id)
    (claim,) = db.claim(runner or db.runner())
    assert claim.run_id == run.run_id
    accepted(db, claim, "started")
    return claim


def test_failure_is_tried_again_after_its_backoff(db: DbVerbs) -> None:
    """Wait unready, keep the session open, take a fresh claim, refuse the former one, and end at the last attempt."""
    first = running(db, retry=POLICY)
    answer = accepted(db, first, "failed", error="one\nmore", exit_code=75)
    assert (answer.status, answer.changed, answer.calls_back) == ("pending", True, False)
    row = db.run(first.run_id)
    assert (row.status, row.ready, row.attempt, row.error, row.claim_token) == ("pending", False, 1, None, None)
    pause = db.one("SELECT extract(epoch FROM not_before - now()) FROM runs")
    assert 50 < pause <= 60
    assert db.session(first.session_id).status == "pending"
    tick(db)
    assert not db.claim(db.runner())

    told = db.count("unnumbered_batches")
    (repeat,) = say(db, report(first, "failed", error="one\nmore", exit_code=75))
    assert isinstance(repeat, Reported)
    assert (repeat.status, repeat.changed, db.run(first.run_id), db.count("unnumbered_batches")) == (
        "pending",
        False,
        row,
        told,
    )
    assert isinstance(say(db, report(first, "completed"))[0], InvalidTransition)

    second = again(db, first)
    assert second.claim_token != first.claim_token
    assert db.run(first.run_id).attempt == 2
    (repeat,) = say(db, report(first, "failed"))
    assert isinstance(repeat, Reported)
    assert not repeat.changed
    accepted(db, second, "failed", error="two")
    assert db.one("SELECT extract(epoch FROM not_before - now()) FROM runs") > 110
    (late,) = say(db, report(first, "failed"))
    assert isinstance(late, StaleClaim)

    third = again(db, second)
    assert accepted(db, third, "failed", error="three").status == "failed"
    row = db.run(first.run_id)
    assert (row.status, row.attempt, row.error) == ("failed", 3, "three")
    assert db.session(first.session_id).status == "failed"


def test_report_and_policy_decide_what_is_final(db: DbVerbs) -> None:
    """Compare exit codes, classes and what the report says of it, of runs that were started and that were not."""
    on = RetryPolicy(3, POLICY.backoff, on=(75, "Busy"), not_on=("app.Broken",))
    cases: list[tuple[RetryPolicy | None, dict[str, Any], float | None]] = [
        (None, {"exit_code": 75}, None),
        (on, {"exit_code": 75}, 60),
        (on, {"exit_code": 1}, None),
        (on, {}, None),
        (on, {"error_class": "app.Busy"}, 60),
        (on, {"error_class": "app.Broken", "exit_code": 75}, None),
        (POLICY, {"retryable": False}, None),
        (POLICY, {"retry_after": 7.0}, 7),
        (POLICY, {"retry_after": 0.0}, 0),
        (RetryPolicy(1, POLICY.backoff), {}, None),
    ]
    runner = db.runner()
    for place, (policy, said, pause) in enumerate(cases):
        run = (claimed if place % 2 else running)(db, runner, retry=policy)
        accepted(db, run, "failed", **said)
        row = db.run(run.run_id)
        assert (row.status, row.attempt) == ("failed" if pause is None else "pending", 1), (policy, said)
        if pause:
            left = db.one("SELECT extract(epoch FROM not_before - now()) FROM runs WHERE run_id = :r", r=run.run_id)
            assert pause - 5 < left <= pause
        assert row.ready == (pause == 0)
        if pause == 0:
            stop(db, run.session_id)


def test_waiting_retry_is_stopped_and_deleted_like_a_pending_run(db: DbVerbs) -> None:
    stopped, deleted = running(db, retry=POLICY), running(db, retry=POLICY)
    for run in (stopped, deleted):
        accepted(db, run, "failed")
    assert stop(db, stopped.session_id).status == "stopped"
    assert db.run(stopped.run_id).status == "stopped"
    assert isinstance(say(db, report(stopped, "failed"))[0], Reported)
    (gone,) = db.do(delete_sessions, [DeleteSession(ADMIN, deleted.session_id)])
    assert isinstance(gone, Deleted)
    assert db.count("runs") == 1


def test_next_run_of_the_session_waits_for_the_retry(db: DbVerbs) -> None:
    run = running(db, retry=POLICY)
    later = db.resume(run.session_id)
    accepted(db, run, "failed")
    tick(db)
    assert not db.run(later.run_id).ready
    accepted(db, again(db, run), "completed")
    assert db.run(later.run_id).ready


def test_parent_is_called_back_after_the_last_attempt_only(db: DbVerbs) -> None:
    parent = running(db)
    child = child_of(db, parent.session_id, retry=RetryPolicy(2, POLICY.backoff))
    accepted(db, child, "failed", error="one")
    assert not waiting(db, parent.session_id)
    accepted(db, again(db, child), "failed", error="two")
    assert waiting(db, parent.session_id) == [child.session_id]


def test_plain_statements_leave_policies_to_the_verbs(db: DbVerbs) -> None:
    """Only a failure of a run with a policy is not plain; without one nothing has changed."""
    add_profile(db)
    with_policy, without = start_submission(retry=POLICY), start_submission()
    results = db.do(submit_plain, [with_policy, without])
    assert [result is NOT_PLAIN for result in results] == [True, False]
    db.rows("DELETE FROM runs")
    runs = [running(db, retry=POLICY), running(db, retry=POLICY), running(db)]
    reports = [report(run, outcome) for run, outcome in zip(runs, ("failed", "completed", "failed"), strict=True)]
    reported = db.do(report_plain_runs, reports)
    assert [result is NOT_PLAIN for result in reported] == [True, False, False]


def test_timeline_has_error_end_and_log_of_each_attempt(db: DbVerbs) -> None:
    """Lose nothing to the row, whose error is that of the last attempt."""
    first = running(db, retry=POLICY)
    write_result(db, first, result_text="of one")
    accepted(db, first, "failed", error="one", exit_code=75)
    number_all(db)
    second = again(db, first)
    write_result(db, second, result_text="of two")
    number_all(db)
    accepted(db, second, "failed", error="two", error_class="app.Broken", retryable=False)
    number_all(db)
    found = db.do(run_timeline, ADMIN, first.run_id)
    assert isinstance(found, RunTimeline)
    assert found.retry == POLICY
    shown = [(attempt.attempt, attempt.ended_by, attempt.error, attempt.failure) for attempt in found.attempts]
    assert shown == [
        (1, "failed", "one", {"error": "one", "exit_code": 75, "error_class": None}),
        (2, "failed", "two", {"error": "two", "exit_code": None, "error_class": "app.Broken"}),
    ]
    assert found.attempts[0].steps[-1].detail == "Attempt 1 of 3 failed: one"
    logs = []
    for attempt in found.attempts:
        page = db.do(
            list_events,
            ADMIN,
            first.session_id,
            run_id=first.run_id,
            after=attempt.log_after,
            before=attempt.log_before,
        )
        assert isinstance(page, EventPage)
        logs.append([event.data.count("of one") - event.data.count("of two") for event in page.events])
    assert [(max(log), min(log)) for log in logs] == [(1, 0), (0, -1)]


def test_explanation_counts_the_retries(db: DbVerbs) -> None:
    run = running(db, retry=POLICY)
    accepted(db, run, "failed")
    found = db.do(explain_run, ADMIN, run.run_id)
    assert isinstance(found, RunExplanation)
    assert found.reasons[0].code == "delayed"
    assert found.headline.endswith("retry 1 of 2 after failure")


def test_replay_has_the_policy_of_its_original(db: DbVerbs) -> None:
    run = running(db, retry=POLICY)
    accepted(db, run, "failed", retryable=False)
    db.do(replay_runs, [Replay(ADMIN, run.run_id, "run_again", "ses_again")])
    assert db.one("SELECT CAST(retry AS text) FROM runs WHERE run_id = 'run_again'") == db.one(
        "SELECT CAST(retry AS text) FROM runs WHERE run_id = :r", r=run.run_id
    )


REFUSED: list[Any] = [
    3,
    {},
    {"max_attempts": 0},
    {"max_attempts": 101},
    {"max_attempts": True},
    {"max_attempts": 2, "backoff": {"initial": -1}},
    {"max_attempts": 2, "backoff": {"initial": 10, "max": 5}},
    {"max_attempts": 2, "backoff": {"factor": 0.5}},
    {"max_attempts": 2, "backoff": {"jitter": 1.5}},
    {"max_attempts": 2, "backoff": {"max": 10**9}},
    {"max_attempts": 2, "on": []},
    {"max_attempts": 2, "on": [True]},
    {"max_attempts": 2, "on": ["a"], "not_on": ["a"]},
    {"max_attempts": 2, "on": ["x" * 201]},
    {"max_attempts": 2, "on": ["nul \0"]},
    {"max_attempts": 2, "on": ["\ud800"]},
    {"max_attempts": 2, "not_on": [1] * 65},
]


def test_policies_and_reports_over_http(settings: Settings, db: DbVerbs) -> None:
    """Refuse policies with a text; keep what a report says that makes no sense from having an effect."""
    with served(settings) as web:
        until_ready(web)
        client = web.client
        for policy in REFUSED:
            answer = client.post("/runs", {"type": "start_session", "parameters": {"prompt": "x"}, "retry": policy})
            assert (answer.status_code, "retry" in answer.text) == (422, True), (policy, answer.text)
        runner_id = client.register()
        retry = {"max_attempts": 4, "backoff": {"initial": 0, "jitter": 0}, "on": [75, "Busy"]}
        body = {"type": "start_session", "parameters": {"prompt": "x"}, "retry": retry}
        (item,) = client.post("/runs/batch", {"runs": [body]}).json()["results"]
        said: list[dict[str, Any]] = [
            {"exit_code": 75, "error": "busy", "retry_after": "soon"},
            {"error_class": "Busy", "retry_after": -1, "retryable": "no"},
            {"exit_code": 10**40, "error_class": ["Busy"], "retry_after": 10**400, "error": "last"},
        ]
        for fields in said:
            run = client.claim(runner_id)
            assert client.report(run, runner_id, "started").status_code == 200
            assert client.report(run, runner_id, "failed", **fields).status_code == 200
        run = client.get(f"/runs/{item['run_id']}").json()
        assert (run["status"], run["attempt"], run["error"]) == ("failed", 3, "last")
        found = client.get(f"/runs/{item['run_id']}/timeline").json()
        check_fields("GET /runs/{run_id}/timeline", 200, found)
        assert [attempt["ended_by"] for attempt in found["attempts"]] == ["failed"] * 3
        assert found["retry"]["backoff"] == {"initial": 0, "factor": 2, "max": 300, "jitter": 0}


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.STOPPED])
def test_other_ends_are_final(db: DbVerbs, outcome: Outcome) -> None:
    run = running(db, retry=POLICY)
    (result,) = db.do(report_runs, [report(run, outcome.value)])
    assert isinstance(result, Reported)
    assert db.run(run.run_id).status == outcome.value
