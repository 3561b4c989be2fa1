"""Spans of ended runs: read once from the feed, and built from what Postgres kept."""

from datetime import UTC, datetime, timedelta

import pytest

from models.core.statuses import RunStatus
from models.tracing.ended_runs import EndedRun, EndedRuns, next_ended_runs
from runtime.tracing.contexts import execution_traceparent, parse_traceparent, run_span_id
from runtime.tracing.spans import Span
from tests.support import clocks
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all
from tests.support.parents import child_of, deliver, last_run
from tests.support.reports import accepted, claimed, idle, report, running, say, stop_run
from workers.run_spans import spans_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = f"00-{TRACE}-00f067aa0ba902b7-01"
UNSAMPLED = f"00-{TRACE}-00f067aa0ba902b7-00"


def ended(db: DbVerbs) -> EndedRuns:
    number_all(db)
    return db.do(next_ended_runs)


def named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


def test_sampled_runs_are_returned_once_after_their_end(db: DbVerbs) -> None:
    sampled_runs_are_returned_once_after_their_end(db)


def sampled_runs_are_returned_once_after_their_end(db: DbVerbs) -> None:
    run = running(db, traceparent=SAMPLED)
    quiet, plain = running(db, traceparent=UNSAMPLED), running(db)
    assert ended(db).runs == []
    for each in (run, quiet, plain):
        accepted(db, each, "completed")
    found = [(each.run_id, each.status, each.traceparent) for each in ended(db).runs]
    assert found == [(run.run_id, "completed", SAMPLED)]
    assert ended(db) == EndedRuns()


def test_healthy_run_has_span_of_run_wait_and_execution(db: DbVerbs) -> None:
    run = running(db, traceparent=SAMPLED, agent_name="counter")
    accepted(db, run, "completed")
    whole, queued, execution = spans_of(ended(db).runs[0])
    assert (whole.name, queued.name, execution.name) == ("run", "queued", "execution")
    assert (whole.parent, whole.error) == (parse_traceparent(SAMPLED), None)
    assert queued.parent == execution.parent == whole.context
    assert whole.context.span_id == run_span_id(run.run_id)
    assert execution.context.traceparent == execution_traceparent(SAMPLED, run.run_id, 1)
    assert whole.began == queued.began <= queued.ended <= execution.began < execution.ended == whole.ended
    assert whole.attributes["gen_ai.agent.name"] == "counter"
    assert execution.attributes["coordinator.runner.id"] == run.runner_id


def test_each_attempt_has_wait_and_execution_of_its_own(db: DbVerbs) -> None:
    """Lose the runner of the first attempt, and fail the second."""
    first = db.runner()
    run = running(db, first, traceparent=SAMPLED, max_attempts=2)
    clocks.fall_silent(db, first, 999)
    clocks.tick(db)
    (again,) = db.claim(db.runner())
    accepted(db, again, "started")
    accepted(db, again, "failed", error="broken\nin two")
    spans = spans_of(ended(db).runs[0])
    one, two = named(spans, "execution")
    assert [span.context.traceparent for span in (one, two)] == [
        execution_traceparent(SAMPLED, run.run_id, attempt) for attempt in (1, 2)
    ]
    assert one.error is not None
    assert one.error.startswith("Runner lost")
    assert two.error == "broken"
    assert one.attributes["coordinator.runner.id"] != two.attributes["coordinator.runner.id"]
    waits = named(spans, "queued")
    assert len(waits) == 2
    assert waits[0].ended <= one.began <= one.ended <= waits[1].ended <= two.began <= two.ended == spans[0].ended
    assert spans[0].error == "broken"


def test_run_that_was_never_claimed_has_waited_only(db: DbVerbs) -> None:
    submitted = db.start(traceparent=SAMPLED, delay_seconds=3600)
    stop_run(db, submitted.run_id)
    whole, queued = spans_of(ended(db).runs[0])
    assert (whole.error, queued.began, queued.ended) == (None, queued.ended, whole.ended)


def test_delayed_run_waits_from_its_earliest_start() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    due, claimed_at, done = (now + timedelta(seconds=seconds) for seconds in (60, 61, 62))
    run = EndedRun(
        "run_1",
        "ses_1",
        "start_session",
        None,
        "lnch_1",
        "completed",
        None,
        1,
        SAMPLED,
        now,
        due,
        claimed_at,
        None,
        done,
    )
    whole, queued = spans_of(run)
    assert (queued.began - whole.began, queued.ended - queued.began) == (60 * 10**9, 10**9)


def test_reader_far_behind_begins_anew(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what is older: turned on after a year, tracing does not export the year."""
    accepted(db, running(db, traceparent=SAMPLED), "completed")
    number_all(db)
    position = db.one("SELECT last_pos FROM feed_head")
    later = running(db, traceparent=SAMPLED)
    accepted(db, later, "completed")
    number_all(db)
    behind = db.one("SELECT last_pos FROM feed_head") - position
    monkeypatch.setattr("models.tracing.ended_runs.MOST_BEHIND", behind)
    found = db.do(next_ended_runs)
    assert [run.run_id for run in found.runs] == [later.run_id]
    assert (found.left_out, found.passed) == (position, behind)


def test_pass_is_bounded(db: DbVerbs) -> None:
    for _ in range(3):
        accepted(db, running(db, traceparent=SAMPLED), "completed")
    number_all(db)
    passes: list[EndedRuns] = []
    while not passes or passes[-1].passed:
        passes.append(db.do(next_ended_runs, most=4))
    assert all(each.passed <= 4 for each in passes)
    assert sum(len(each.runs) for each in passes) == 3


def test_callback_continues_trace_of_its_parent(db: DbVerbs) -> None:
    parent = idle(db, traceparent=SAMPLED)
    child = child_of(db, parent.session_id)
    accepted(db, child, "completed")
    assert deliver(db).runs
    assert last_run(db, parent.session_id).traceparent == SAMPLED


def test_plain_submission_and_any_other_keep_trace(db: DbVerbs) -> None:
    plain = db.start(traceparent=SAMPLED)
    resumed = db.resume(plain.session_id, traceparent=UNSAMPLED)
    kept = {row.run_id: row.traceparent for row in db.rows("SELECT run_id, traceparent FROM runs")}
    assert kept == {plain.run_id: SAMPLED, resumed.run_id: UNSAMPLED}


def test_refused_report_ends_no_run_twice(db: DbVerbs) -> None:
    run = claimed(db, traceparent=SAMPLED)
    accepted(db, run, "started")
    accepted(db, run, "completed")
    say(db, report(run, "failed", error="late"))
    assert [found.status for found in ended(db).runs] == [RunStatus.COMPLETED]
