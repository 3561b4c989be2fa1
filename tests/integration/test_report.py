"""Reports of runners on a real database: effects, refusals and repeats."""

from itertools import product
from typing import Any

import pytest

from models.core.errors import InvalidTransition, NotFound, RunnerNotRegistered, StaleClaim
from models.core.statuses import Outcome
from models.runs.report import Reported, report_runs
from models.state.runs import Run, iso
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.db_verbs import DbVerbs
from tests.support.reports import accepted, claimed, history, report, running, say, session_statuses, stop, time_out


def test_started_report_sets_run_and_session_running(db: DbVerbs) -> None:
    """Count the attempt, begin the timeline, note the process."""
    run = claimed(db)
    result = accepted(db, run, "started")
    assert (result.status, result.changed) == ("running", True)
    row, session = db.run(run.run_id), db.session(run.session_id)
    assert (row.status, row.attempt, row.claim_deadline_at) == ("running", 1, None)
    assert row.started_at is not None
    assert (session.status, session.runner_id, session.registration) == ("running", run.runner_id, row.registration)
    assert history(db, run.session_id) == ["run_start"]


def test_run_events_carry_database_clock(db: DbVerbs) -> None:
    """Ignore the clock of the machine that wrote them, which may be wrong."""
    run = running(db)
    accepted(db, run, "completed")
    rows = db.rows(
        f"SELECT event_type, frame->'data'->>'timestamp' AS moment FROM {RECORDED_EVENTS} WHERE kind = 'event'"
    )
    row, told = db.run(run.run_id), {event.event_type: event.moment for event in rows}
    assert told == {"run_start": iso(row.started_at), "run_completed": iso(row.completed_at)}


@pytest.mark.parametrize(
    ("outcome", "values", "session", "live"),
    [
        ("completed", {}, "finished", False),
        ("completed", {"session_status": "finished"}, "finished", False),
        ("completed", {"session_status": "idle"}, "idle", True),
        ("failed", {"error": "boom"}, "failed", False),
        ("stopped", {"signal": "SIGTERM"}, "stopped", False),
    ],
)
@pytest.mark.parametrize("begin", [claimed, running])
def test_end_report_ends_run_and_updates_session(
    db: DbVerbs, begin: Any, outcome: str, values: dict[str, str], session: str, *, live: bool
) -> None:
    """Count an end report without a start report as both."""
    run = begin(db)
    accepted(db, run, outcome, **values)
    row, after = db.run(run.run_id), db.session(run.session_id)
    assert (row.status, row.attempt, row.error, row.ended_by_us) == (outcome, 1, values.get("error"), False)
    assert row.started_at is not None
    assert row.completed_at is not None
    assert (after.status, after.runner_id is not None) == (session, live)
    assert history(db, run.session_id) == ["run_start"] + (["run_completed"] if outcome == "completed" else [])
    assert db.told_kinds(run.session_id).count("run_failed") == (outcome == "failed")


@pytest.mark.parametrize("outcome", ["completed", "failed", "stopped"])
@pytest.mark.parametrize("what", ["nothing", "the next run", "room at its runner"])
def test_end_report_wakes_dispatch_only_for_waiting_runs(db: DbVerbs, outcome: str, what: str) -> None:
    """Wake nothing for a start, which frees nothing."""
    submitted = db.start()
    (run,) = db.claim(db.runner(capacity=1 if what == "room at its runner" else None))
    if what == "the next run":
        db.resume(submitted.session_id)
    assert not accepted(db, run, "started").frees
    assert accepted(db, run, outcome).frees == (what != "nothing")
    repeated = accepted(db, run, outcome)
    assert (repeated.changed, repeated.frees) == (False, True), "the wake-up of the first time may have been lost"


def test_run_completed_event_follows_session_updated(db: DbVerbs) -> None:
    """Keep the order: clients read the session's status when they see the end."""
    run = running(db)
    accepted(db, run, "completed")
    assert db.told_kinds(run.session_id)[-3:] == ["run_updated", "session_updated", "event"]
    last = db.one(
        f"SELECT frame->'data' FROM {RECORDED_EVENTS} WHERE session_id = :s ORDER BY id DESC LIMIT 1", s=run.session_id
    )
    assert (last["event_type"], last["exit_code"], last["reason"]) == ("run_completed", 0, "completed")


def test_report_with_stale_token_changes_nothing(db: DbVerbs) -> None:
    """Refuse another runner too, whatever token it has."""
    run, other = running(db), db.runner()
    for fenced in (
        report(run, "completed", token="made-up"),
        report(run, "completed", runner_id=other.runner_id),
        report(run, "completed", token=None, runner_id=other.runner_id),
    ):
        events = db.count(RECORDED_EVENTS)
        assert say(db, fenced) == [StaleClaim(run.run_id, "running")]
        assert (db.run(run.run_id).status, db.count(RECORDED_EVENTS)) == ("running", events)


def test_unknown_runs_and_runners_have_different_errors(db: DbVerbs) -> None:
    """Judge each item by itself; the others go on."""
    run = claimed(db)
    results = say(
        db,
        report(run, "started", runner_id="lnch_unknown"),
        report(Run(**{**_fields(run), "run_id": "run_unknown"}), "started"),
        report(run, "started"),
    )
    assert results[0] == RunnerNotRegistered("lnch_unknown")
    assert results[1] == NotFound("run", "run_unknown")
    assert isinstance(results[2], Reported)


def _fields(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in Run.__slots__}


@pytest.mark.parametrize("outcome", list(Outcome))
def test_repeated_report_is_harmless(db: DbVerbs, outcome: Outcome) -> None:
    """Repeat with and without the token: nothing more is written."""
    run = claimed(db)
    accepted(db, run, outcome.value)
    row, events = db.run(run.run_id), db.count(RECORDED_EVENTS)
    for token in ("own", None):
        again = accepted(db, run, outcome.value, token=token)
        assert (again.changed, again.status) == (False, row.status)
    assert (db.run(run.run_id), db.count(RECORDED_EVENTS)) == (row, events)


@pytest.mark.parametrize(("first", "second"), list(product(Outcome, Outcome)))
def test_two_reports_of_one_run_in_one_batch_are_applied_in_order(db: DbVerbs, first: Outcome, second: Outcome) -> None:
    """Compare every pair of outcomes with two batches, and with the batch done twice."""
    run = claimed(db)
    batch = [report(run, first.value), report(run, second.value)]
    together = db.do(report_runs, batch)
    other = claimed(db)
    apart = [say(db, report(other, outcome.value))[0] for outcome in (first, second)]
    assert [type(result) for result in together] == [type(result) for result in apart]
    assert db.run(run.run_id).status == db.run(other.run_id).status
    assert db.told_kinds(run.session_id) == db.told_kinds(other.session_id)
    row, events = db.run(run.run_id), db.count(RECORDED_EVENTS)
    again = db.do(report_runs, batch)
    assert [type(result) for result in again] == [type(result) for result in together]
    assert (db.run(run.run_id), db.count(RECORDED_EVENTS)) == (row, events)


def test_second_end_report_with_another_outcome_is_refused(db: DbVerbs) -> None:
    """Hold its own runner to the first outcome."""
    run = running(db)
    accepted(db, run, "failed", error="boom")
    assert say(db, report(run, "completed")) == [InvalidTransition(run.run_id, "failed", "completed")]


@pytest.mark.parametrize("outcome", ["completed", "failed", "stopped"])
def test_end_report_of_run_ended_by_expiry_is_accepted(db: DbVerbs, outcome: str) -> None:
    """Change nothing; refuse a start, so that no process goes on."""
    run = running(db)
    db.rows(
        "UPDATE runs SET status = 'stopped', ended_by_us = true, completed_at = now() WHERE run_id = :r", r=run.run_id
    )
    assert accepted(db, run, outcome).changed is False
    assert db.run(run.run_id).status == "stopped"
    assert say(db, report(run, "started")) == [InvalidTransition(run.run_id, "stopped", "started")]


def test_report_of_released_claim_is_stale(db: DbVerbs) -> None:
    """Report while the run is pending again, and while the session's next runner has it."""
    run = running(db, max_attempts=2)
    db.rows(
        "UPDATE runs SET status = 'pending', runner_id = NULL, claim_token = NULL, registration = NULL, ready = true,"
        " delivered_at = NULL, started_at = NULL WHERE run_id = :r",
        r=run.run_id,
    )
    assert say(db, report(run, "completed")) == [StaleClaim(run.run_id, "pending")]
    (second,) = db.claim(db.runner())
    assert say(db, report(run, "completed")) == [StaleClaim(run.run_id, "claimed")]
    assert accepted(db, second, "started").status == "running"
    assert db.run(run.run_id).attempt == 2


def test_timed_out_run_restarts_on_its_end_report(db: DbVerbs) -> None:
    """Ignore the outcome; the repeat is harmless, and another runner's report is refused."""
    run = running(db, max_attempts=2, run_timeout_seconds=5)
    time_out(db, run.run_id)
    assert accepted(db, run, "started").changed is False
    assert accepted(db, run, "stopped").status == "pending"
    row = db.run(run.run_id)
    assert (row.ready, row.runner_id, row.claim_token, row.started_at, row.stop_cause) == (True, None, None, None, None)
    assert row.match_deadline_at is not None
    assert db.session(run.session_id).status == "pending"
    assert accepted(db, run, "stopped").changed is False
    assert say(db, report(run, "completed")) == [InvalidTransition(run.run_id, "pending", "completed")]
    (again,) = db.claim(db.runner())
    accepted(db, again, "started")
    assert accepted(db, run, "stopped").changed is False
    assert db.run(run.run_id).status == "running"


def test_timed_out_run_without_attempts_fails_on_its_end_report(db: DbVerbs) -> None:
    """Give the limit as the reason, on the feed too."""
    run = running(db, run_timeout_seconds=5)
    time_out(db, run.run_id)
    for changed in (True, False):
        assert accepted(db, run, "stopped").changed is changed
    assert (db.run(run.run_id).status, db.run(run.run_id).error) == ("failed", "Run timed out after 5 s")
    assert db.session(run.session_id).status == "failed"
    assert db.told_kinds(run.session_id).count("run_failed") == 1


def test_runner_without_tokens_does_not_get_its_timed_out_run_again(db: DbVerbs) -> None:
    """Exclude it: its late reports could mean either claim."""
    runner = db.runner()
    run = claimed(db, runner, max_attempts=2, run_timeout_seconds=5)
    accepted(db, run, "started", token=None)
    time_out(db, run.run_id)
    accepted(db, run, "failed", token=None)
    assert db.claim(runner) == []
    assert len(db.claim(db.runner())) == 1


def test_first_token_shows_that_runner_sends_tokens(db: DbVerbs) -> None:
    """Infer nothing from reports without a token."""
    run = claimed(db)
    seen = "SELECT sends_tokens FROM runners WHERE runner_id = :r"
    accepted(db, run, "started", token=None)
    assert db.one(seen, r=run.runner_id) is False
    accepted(db, run, "completed")
    assert db.one(seen, r=run.runner_id) is True


@pytest.mark.parametrize(
    ("state", "accepts"),
    [
        ("lost_at = now(), last_seen = now() - interval '5 minutes'", True),
        ("leave_requested_at = now()", True),
        ("leave_requested_at = now(), leave_told_at = now() - interval '170 seconds'", True),
        ("leave_requested_at = now(), leave_told_at = now() - interval '190 seconds'", False),
        ("left_at = now()", False),
        ("last_seen = now() - interval '25 hours'", False),
    ],
)
def test_reports_count_until_runner_has_left(db: DbVerbs, state: str, *, accepts: bool) -> None:
    """Accept them for lost_after (three heartbeats) after the order to leave; a lost runner is online again."""
    run = running(db)
    db.rows(f"UPDATE runners SET {state} WHERE runner_id = :r", r=run.runner_id)
    (result,) = say(db, report(run, "completed"))
    assert isinstance(result, Reported if accepts else RunnerNotRegistered)
    assert db.run(run.run_id).status == ("completed" if accepts else "running")


def test_next_run_of_session_becomes_ready_at_end(db: DbVerbs) -> None:
    """Keep the session pending, not finished."""
    run = running(db)
    second, third = db.resume(run.session_id), db.resume(run.session_id)
    assert [db.run(item.run_id).ready for item in (second, third)] == [False, False]
    accepted(db, run, "completed", session_status="idle")
    assert [db.run(item.run_id).ready for item in (second, third)] == [True, False]
    assert db.session(run.session_id).status == "pending"


def test_unstorable_error_is_stored_replaced(db: DbVerbs) -> None:
    """Keep the report, which deployed runners send once."""
    run = running(db)
    accepted(db, run, "failed", error="a\0b\ud800" + "x" * 100_000)
    error = db.run(run.run_id).error
    assert error.startswith("a\ufffdb\ufffdxxx")
    assert len(error.encode()) <= 65_536


def test_each_status_of_a_run_is_on_the_feed_once_in_causal_order(db: DbVerbs) -> None:
    run = running(db)
    accepted(db, run, "completed", session_status="idle")
    assert session_statuses(db, run.session_id) == ["pending", "running", "idle"]
    states = db.rows(
        f"SELECT frame->'run'->>'status' AS status FROM {RECORDED_EVENTS} WHERE session_id = :s AND kind = 'run_updated' ORDER BY id",
        s=run.session_id,
    )
    assert [row.status for row in states] == ["pending", "claimed", "running", "completed"]


def test_two_sessions_of_one_runner_are_reported_in_one_batch(db: DbVerbs) -> None:
    """Use one statement for each, and return one result per item in item order."""
    runner = db.runner()
    runs = [claimed(db, runner) for _ in range(5)]
    batch = [report(run, outcome) for outcome in ("started", "completed") for run in reversed(runs)]
    results = db.do(report_runs, batch)
    assert [result.run_id for result in results if isinstance(result, Reported)] == [
        r.run_id for r in reversed(runs)
    ] * 2
    assert {db.run(run.run_id).status for run in runs} == {"completed"}


def test_end_report_of_stopping_run_keeps_its_outcome(db: DbVerbs) -> None:
    """Accept `completed` for stopping runs, which deployed clients send every day."""
    for outcome, session in (("completed", "finished"), ("failed", "failed"), ("stopped", "stopped")):
        run = running(db)
        stop(db, run.session_id)
        accepted(db, run, outcome)
        assert (db.run(run.run_id).status, db.session(run.session_id).status) == (outcome, session)
        assert db.count("stop_commands") == 0
