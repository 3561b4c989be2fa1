"""Reports of runners on a real database: what they change, what they are refused, what a repeat does."""

from itertools import product
from typing import Any

import pytest

from models.core.errors import InvalidTransition, NotFound, RunnerNotRegistered, StaleClaim
from models.core.statuses import Outcome
from models.runs.report import Reported, report_runs
from models.state.runs import Run, iso
from tests.support.db_verbs import DbVerbs
from tests.support.reports import accepted, claimed, history, report, running, say, session_statuses, stop, time_out


def test_a_started_run_runs_and_so_does_its_session(db: DbVerbs) -> None:
    """The attempt is counted, the timeline begins, the process is known."""
    run = claimed(db)
    result = accepted(db, run, "started")
    assert (result.status, result.changed) == ("running", True)
    row, session = db.run(run.run_id), db.session(run.session_id)
    assert (row.status, row.attempt, row.claim_deadline_at) == ("running", 1, None)
    assert row.started_at is not None
    assert (session.status, session.runner_id, session.registration) == ("running", run.runner_id, row.registration)
    assert history(db, run.session_id) == ["run_start"]


def test_events_of_a_run_carry_the_databases_clock(db: DbVerbs) -> None:
    """The moments of its start and end, not those of the machine that wrote them, whose clock may be wrong."""
    run = running(db)
    accepted(db, run, "completed")
    rows = db.rows("SELECT event_type, frame->'data'->>'timestamp' AS moment FROM events WHERE kind = 'event'")
    row, told = db.run(run.run_id), {one.event_type: one.moment for one in rows}
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
def test_an_end_report_ends_the_run_and_tells_the_session(
    db: DbVerbs, begin: Any, outcome: str, values: dict[str, str], session: str, *, live: bool
) -> None:
    """Also for a run whose start was never reported: then the end is the start too."""
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
def test_an_end_frees_what_waited_for_it(db: DbVerbs, outcome: str, what: str) -> None:
    """Dispatch is rung only then: what nobody waits for, nobody needs to look for. A start frees nothing."""
    submitted = db.start()
    (run,) = db.claim(db.runner(capacity=1 if what == "room at its runner" else None))
    if what == "the next run":
        db.resume(submitted.session_id)
    assert not accepted(db, run, "started").frees
    assert accepted(db, run, outcome).frees == (what != "nothing")
    repeated = accepted(db, run, outcome)
    assert (repeated.changed, repeated.frees) == (False, True), "the rings of the first time may have been lost"


def test_a_completed_run_is_told_after_its_session(db: DbVerbs) -> None:
    """session_updated, then run_completed: clients read the session's status when they see the end."""
    run = running(db)
    accepted(db, run, "completed")
    assert db.told_kinds(run.session_id)[-3:] == ["run_updated", "session_updated", "event"]
    last = db.one("SELECT frame->'data' FROM events WHERE session_id = :s ORDER BY id DESC LIMIT 1", s=run.session_id)
    assert (last["event_type"], last["exit_code"], last["reason"]) == ("run_completed", 0, "completed")


def test_a_report_with_a_stale_token_changes_nothing(db: DbVerbs) -> None:
    """Nor does one of another runner, whatever token it knows."""
    run, other = running(db), db.runner()
    for fenced in (
        report(run, "completed", token="made-up"),
        report(run, "completed", runner_id=other.runner_id),
        report(run, "completed", token=None, runner_id=other.runner_id),
    ):
        events = db.count("events")
        assert say(db, fenced) == [StaleClaim(run.run_id, "running")]
        assert (db.run(run.run_id).status, db.count("events")) == ("running", events)


def test_unknown_runs_and_runners_are_told_apart(db: DbVerbs) -> None:
    """Each item for itself; the others go on."""
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
def test_repeating_a_report_that_took_effect_is_harmless(db: DbVerbs, outcome: Outcome) -> None:
    """With the token and without: nothing more is written."""
    run = claimed(db)
    accepted(db, run, outcome.value)
    row, events = db.run(run.run_id), db.count("events")
    for token in ("own", None):
        again = accepted(db, run, outcome.value, token=token)
        assert (again.changed, again.status) == (False, row.status)
    assert (db.run(run.run_id), db.count("events")) == (row, events)


@pytest.mark.parametrize(("first", "second"), list(product(Outcome, Outcome)))
def test_two_reports_of_one_run_in_one_batch_are_applied_in_order(db: DbVerbs, first: Outcome, second: Outcome) -> None:
    """Every pair of outcomes comes to the same as in two batches, and so does the batch done twice."""
    run = claimed(db)
    batch = [report(run, first.value), report(run, second.value)]
    together = db.do(report_runs, batch)
    other = claimed(db)
    apart = [say(db, report(other, outcome.value))[0] for outcome in (first, second)]
    assert [type(result) for result in together] == [type(result) for result in apart]
    assert db.run(run.run_id).status == db.run(other.run_id).status
    assert db.told_kinds(run.session_id) == db.told_kinds(other.session_id)
    row, events = db.run(run.run_id), db.count("events")
    again = db.do(report_runs, batch)
    assert [type(result) for result in again] == [type(result) for result in together]
    assert (db.run(run.run_id), db.count("events")) == (row, events)


def test_a_report_after_another_end_is_refused(db: DbVerbs) -> None:
    """The one who holds it cannot change its end."""
    run = running(db)
    accepted(db, run, "failed", error="boom")
    assert say(db, report(run, "completed")) == [InvalidTransition(run.run_id, "failed", "completed")]


@pytest.mark.parametrize("outcome", ["completed", "failed", "stopped"])
def test_an_end_report_of_a_run_that_we_ended_is_accepted(db: DbVerbs, outcome: str) -> None:
    """It changes nothing; a start, however, is refused, so that no process goes on."""
    run = running(db)
    db.rows(
        "UPDATE runs SET status = 'stopped', ended_by_us = true, completed_at = now() WHERE run_id = :r", r=run.run_id
    )
    assert accepted(db, run, outcome).changed is False
    assert db.run(run.run_id).status == "stopped"
    assert say(db, report(run, "started")) == [InvalidTransition(run.run_id, "stopped", "started")]


def test_the_report_of_a_released_claim_is_stale(db: DbVerbs) -> None:
    """Also when the run is pending again, and when the same session's next runner has it."""
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


def test_a_timed_out_run_starts_again_on_its_end_report(db: DbVerbs) -> None:
    """Whatever the report says; its repeat is harmless and another one's refused."""
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


def test_a_timed_out_run_without_attempts_fails_on_its_end_report(db: DbVerbs) -> None:
    """With the limit as its reason, on the feed too."""
    run = running(db, run_timeout_seconds=5)
    time_out(db, run.run_id)
    for changed in (True, False):
        assert accepted(db, run, "stopped").changed is changed
    assert (db.run(run.run_id).status, db.run(run.run_id).error) == ("failed", "Run timed out after 5 s")
    assert db.session(run.session_id).status == "failed"
    assert db.told_kinds(run.session_id).count("run_failed") == 1


def test_a_runner_without_tokens_does_not_get_the_run_it_timed_out_again(db: DbVerbs) -> None:
    """Its late reports could mean either claim."""
    runner = db.runner()
    run = claimed(db, runner, max_attempts=2, run_timeout_seconds=5)
    accepted(db, run, "started", token=None)
    time_out(db, run.run_id)
    accepted(db, run, "failed", token=None)
    assert db.claim(runner) == []
    assert len(db.claim(db.runner())) == 1


def test_the_first_token_shows_that_a_runner_sends_them(db: DbVerbs) -> None:
    """Token-less reports leave it open."""
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
def test_reports_count_until_the_runner_has_left(db: DbVerbs, state: str, *, accepts: bool) -> None:
    """One that was told to leave may finish for lost_after (three heartbeats); a lost one is back."""
    run = running(db)
    db.rows(f"UPDATE runners SET {state} WHERE runner_id = :r", r=run.runner_id)
    (result,) = say(db, report(run, "completed"))
    assert isinstance(result, Reported if accepts else RunnerNotRegistered)
    assert db.run(run.run_id).status == ("completed" if accepts else "running")


def test_the_next_run_of_the_session_becomes_ready_at_the_end(db: DbVerbs) -> None:
    """The session waits for it: pending, not finished."""
    run = running(db)
    second, third = db.resume(run.session_id), db.resume(run.session_id)
    assert [db.run(one.run_id).ready for one in (second, third)] == [False, False]
    accepted(db, run, "completed", session_status="idle")
    assert [db.run(one.run_id).ready for one in (second, third)] == [True, False]
    assert db.session(run.session_id).status == "pending"


def test_an_error_that_cannot_be_stored_is_stored_all_the_same(db: DbVerbs) -> None:
    """Deployed runners send a report once."""
    run = running(db)
    accepted(db, run, "failed", error="a\0b\ud800" + "x" * 100_000)
    error = db.run(run.run_id).error
    assert error.startswith("a\ufffdb\ufffdxxx")
    assert len(error.encode()) <= 65_536


def test_a_whole_life_tells_the_feed_each_status_once(db: DbVerbs) -> None:
    """In causal order."""
    run = running(db)
    accepted(db, run, "completed", session_status="idle")
    assert session_statuses(db, run.session_id) == ["pending", "running", "idle"]
    states = db.rows(
        "SELECT frame->'run'->>'status' AS status FROM events WHERE session_id = :s AND kind = 'run_updated' ORDER BY id",
        s=run.session_id,
    )
    assert [row.status for row in states] == ["pending", "claimed", "running", "completed"]


def test_two_sessions_of_one_runner_are_reported_in_one_batch(db: DbVerbs) -> None:
    """One statement each, one result per item, in the order of the items."""
    runner = db.runner()
    runs = [claimed(db, runner) for _ in range(5)]
    batch = [report(run, outcome) for outcome in ("started", "completed") for run in reversed(runs)]
    results = db.do(report_runs, batch)
    assert [result.run_id for result in results if isinstance(result, Reported)] == [
        r.run_id for r in reversed(runs)
    ] * 2
    assert {db.run(run.run_id).status for run in runs} == {"completed"}


def test_an_end_report_of_a_stopping_run_is_taken_as_it_is(db: DbVerbs) -> None:
    """Deployed clients send completed for stopping runs every day."""
    for outcome, session in (("completed", "finished"), ("failed", "failed"), ("stopped", "stopped")):
        run = running(db)
        stop(db, run.session_id)
        accepted(db, run, outcome)
        assert (db.run(run.run_id).status, db.session(run.session_id).status) == (outcome, session)
        assert db.count("stop_commands") == 0
