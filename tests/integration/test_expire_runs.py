"""Deadlines of runs and claims on a real database: the effects of a pass of expiry, and that they happen once."""

import pytest

from models.claims.claim import Ask
from models.claims.matching import Demands
from models.core.limits import Limits
from models.core.statuses import Outcome
from models.runs.report import report_runs
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.clocks import add_outage, counts, due, pass_time, tick
from tests.support.db_verbs import DbVerbs, poll_request, start_submission
from tests.support.matching import no_match_due, timeout_at, unmatched_for
from tests.support.reports import accepted, claimed, history, idle, report, running, say, session_statuses, stop


def undelivered(db: DbVerbs) -> tuple[str, Ask]:
    """Return a run that a worker assigned to a parked poll, not delivered yet."""
    runner = db.runner()
    poll = db.park(runner)
    run = db.start()
    assert db.dispatch() == {poll.poll_id: [run.run_id]}
    return run.run_id, poll


def test_pass_with_nothing_due_changes_nothing(db: DbVerbs) -> None:
    """Update its own clock only."""
    running(db)
    db.start()
    before = db.rows("SELECT * FROM runs ORDER BY run_id"), db.count(RECORDED_EVENTS)
    result = tick(db)
    assert (result.counts, result.actors, result.again) == ({}, frozenset(), False)
    assert (db.rows("SELECT * FROM runs ORDER BY run_id"), db.count(RECORDED_EVENTS)) == before


def test_ended_delay_makes_run_ready(db: DbVerbs) -> None:
    """Allow claims, and start the time to find a match."""
    run = db.start(delay_seconds=3600)
    assert counts(db) == {}
    due(db, run.run_id, "not_before")
    result = tick(db)
    assert result.counts == {"ready": 1}
    assert result.actors == {"dispatch", "broadcast", "callbacks"}
    row = db.run(run.run_id)
    assert row.ready
    assert row.match_deadline_at is not None
    assert counts(db) == {}


def test_delay_that_ended_long_ago_is_found_too(db: DbVerbs) -> None:
    """Skip an hour of passes: readiness is read from state, not from edges."""
    run = db.start(delay_seconds=3600)
    due(db, run.run_id, "not_before", ago=3600)
    assert counts(db) == {"ready": 1}


def test_due_run_behind_earlier_one_stays_unready(db: DbVerbs) -> None:
    """Run a session's runs one at a time, in submission order."""
    first = db.start(delay_seconds=3600)
    second = db.resume(first.session_id, delay_seconds=60)
    due(db, second.run_id, "not_before")
    assert counts(db) == {}
    assert not db.run(second.run_id).ready


def test_missed_readiness_is_repaired(db: DbVerbs) -> None:
    run = db.start()
    db.rows("UPDATE runs SET ready = false, match_deadline_at = NULL WHERE run_id = :r", r=run.run_id)
    assert counts(db) == {"ready": 1}
    assert db.run(run.run_id).ready


def test_run_is_not_ready_during_open_stop_of_its_session(db: DbVerbs) -> None:
    """Hold it back: deployed runners know sessions only, and the old stop would end the new run."""
    run = idle(db)
    stop(db, run.session_id)
    resumed = db.resume(run.session_id)
    assert counts(db) == {}
    assert not db.run(resumed.run_id).ready


def test_unmatched_resume_returns_idle_session_to_idle(db: DbVerbs) -> None:
    """Keep its process, which is alive all the same."""
    first = idle(db)
    run = db.resume(first.session_id, additional_demands=Demands(tags=("gpu",)))
    no_match_due(db, run.run_id)
    assert counts(db) == {"unmatched": 1}
    assert db.session(run.session_id).status == "idle"


def test_unmatched_run_makes_next_run_ready(db: DbVerbs) -> None:
    """Give the next run of the session a time of its own."""
    first = db.start()
    second = db.resume(first.session_id)
    no_match_due(db, first.run_id)
    assert counts(db) == {"unmatched": 1}
    assert db.run(second.run_id).ready
    assert db.session(first.session_id).status == "pending"
    assert counts(db) == {}


def test_undelivered_claim_is_released_at_its_deadline(db: DbVerbs) -> None:
    """Count no attempt and exclude no registration."""
    run_id, _ = undelivered(db)
    assert counts(db) == {}
    due(db, run_id, "claim_deadline_at")
    assert counts(db) == {"claims released": 1}
    row = db.run(run_id)
    assert (row.status, row.ready, row.claim_token, row.runner_id) == ("pending", True, None, None)
    assert (row.attempt, row.fruitless_claims, row.not_for) == (0, 0, None)


def test_unstarted_delivered_claim_is_released_and_excludes_registration(db: DbVerbs) -> None:
    """Exclude it: without tokens a late report could not be told from one of a new claim."""
    runner = db.runner()
    run = claimed(db, runner)
    due(db, run.run_id, "claim_deadline_at")
    assert counts(db) == {"claims released": 1}
    row = db.run(run.run_id)
    assert (row.status, row.fruitless_claims, row.not_for) == ("pending", 1, [runner.registration])
    assert db.claim(runner) == []


def test_runner_that_sends_tokens_may_reclaim_unstarted_run(db: DbVerbs) -> None:
    """Allow it, since a late report carries the old token."""
    runner = db.runner()
    db.rows("UPDATE runners SET sends_tokens = true")
    run = claimed(db, runner)
    due(db, run.run_id, "claim_deadline_at")
    assert counts(db) == {"claims released": 1}
    assert db.run(run.run_id).not_for is None
    assert [item.run_id for item in db.claim(runner)] == [run.run_id]


def test_tenth_unstarted_claim_fails_run(db: DbVerbs) -> None:
    """Stop retrying what never starts."""
    run = claimed(db)
    db.rows("UPDATE runs SET fruitless_claims = 9")
    due(db, run.run_id, "claim_deadline_at")
    assert counts(db) == {"claims released": 1}
    row = db.run(run.run_id)
    assert (row.status, row.error) == ("failed", "Claimed 10 times, never started")


def test_stale_runner_loses_undelivered_claims_at_once(db: DbVerbs) -> None:
    """Skip the rest of the claim deadline."""
    run_id, _ = undelivered(db)
    db.rows("UPDATE runners SET last_seen = now() - interval '121 seconds'")
    assert counts(db) == {"claims released": 1}
    assert db.run(run_id).status == "pending"


def test_stale_runner_keeps_delivered_claims(db: DbVerbs) -> None:
    """Wait, since it may be starting the process."""
    run = claimed(db)
    db.rows("UPDATE runners SET last_seen = now() - interval '121 seconds'")
    assert counts(db) == {}
    assert db.run(run.run_id).status == "claimed"


def test_run_past_its_time_limit_is_told_to_stop_first(db: DbVerbs) -> None:
    """End it by its report or by the stop deadline, since the process is alive."""
    run = running(db, run_timeout_seconds=5)
    due(db, run.run_id, "run_deadline_at", ago=1)
    db.rows("UPDATE runs SET started_at = now() - interval '6 seconds'")
    assert counts(db) == {"timed out": 1}
    row = db.run(run.run_id)
    assert (row.status, row.stop_cause) == ("stopping", "timeout")
    assert db.count("stop_commands", "session_id = :s AND run_id = :r", s=run.session_id, r=run.run_id) == 1
    assert db.session(run.session_id).status == "stopping"
    assert row.run_deadline_at > db.one("SELECT now() + interval '170 seconds'")
    assert counts(db) == {}


@pytest.mark.parametrize(("attempts", "status"), [(1, "failed"), (2, "pending")])
def test_timed_out_run_that_does_not_end_is_given_up(db: DbVerbs, attempts: int, status: str) -> None:
    """Requeue it if attempts are left, else fail it and name the limit."""
    run = running(db, run_timeout_seconds=5, max_attempts=attempts)
    due(db, run.run_id, "run_deadline_at")
    counts(db)
    due(db, run.run_id, "run_deadline_at")
    assert counts(db) == {"stops given up": 1}
    row = db.run(run.run_id)
    assert (row.status, row.error) == (status, "Run timed out after 5 s" if status == "failed" else None)
    assert db.count("stop_commands") == 0
    assert row.ready == (status == "pending")


def test_stopped_run_of_silent_runner_is_stopped_at_deadline(db: DbVerbs) -> None:
    """Never requeue it."""
    run = running(db, max_attempts=3)
    stop(db, run.session_id)
    assert counts(db) == {}
    due(db, run.run_id, "run_deadline_at")
    assert counts(db) == {"stops given up": 1}
    assert db.run(run.run_id).status == "stopped"
    assert db.session(run.session_id).status == "stopped"
    assert db.count("stop_commands") == 0


def test_idle_session_of_runner_that_ignores_stop_is_stopped_at_deadline(db: DbVerbs) -> None:
    """Expect no report: deployed runners ignore a stop for a process they do not have."""
    run = idle(db)
    stop(db, run.session_id)
    assert db.session(run.session_id).status == "stopping"
    pass_time(db, "stop_commands", "deadline_at", 3600)
    assert counts(db) == {"idle stops given up": 1}
    session = db.session(run.session_id)
    assert (session.status, session.runner_id) == ("stopped", None)
    assert db.count("stop_commands") == 0


def test_run_behind_stop_becomes_ready_when_stop_is_given_up(db: DbVerbs) -> None:
    run = idle(db)
    stop(db, run.session_id)
    waiting = db.resume(run.session_id)
    pass_time(db, "stop_commands", "deadline_at", 3600)
    assert counts(db) == {"idle stops given up": 1}
    assert db.run(waiting.run_id).ready
    assert db.session(run.session_id).status == "pending"


def test_report_after_expiry_ended_run_is_harmless(db: DbVerbs) -> None:
    """Answer 200 and change nothing."""
    run = running(db)
    stop(db, run.session_id)
    due(db, run.run_id, "run_deadline_at")
    counts(db)
    (result,) = say(db, report(run, "completed"))
    assert not getattr(result, "changed", True)
    assert db.run(run.run_id).status == "stopped"


def age_outages(db: DbVerbs, seconds: float) -> None:
    """Move the outages this many seconds into the past."""
    for column in ("started_at", "ended_at"):
        pass_time(db, "gaps", column, seconds)


def test_claims_have_their_whole_time_after_outage(db: DbVerbs) -> None:
    """Restart their deadlines, since they could be neither delivered nor started."""
    run = claimed(db)
    run_id, _ = undelivered(db)
    due(db, run.run_id, "claim_deadline_at")
    due(db, run_id, "claim_deadline_at")
    add_outage(db, "expiry", 40, 5)
    assert counts(db) == {}
    age_outages(db, 15)
    assert counts(db) == {"claims released": 1}
    assert db.run(run_id).status == "pending"
    age_outages(db, 105)
    assert counts(db) == {"claims released": 1}


def test_stops_have_their_whole_time_after_outage(db: DbVerbs) -> None:
    """Restart their deadlines, since the runner could not be told."""
    run, other = running(db), idle(db)
    stop(db, run.session_id)
    stop(db, other.session_id)
    due(db, run.run_id, "run_deadline_at")
    pass_time(db, "stop_commands", "deadline_at", 200)
    add_outage(db, "expiry", 300, 170)
    db.rows("UPDATE runners SET last_seen = now()")
    assert counts(db) == {}
    age_outages(db, 11)
    assert counts(db) == {"stops given up": 1, "idle stops given up": 1}


def test_match_deadline_moves_by_outage_it_lived_through(db: DbVerbs) -> None:
    """Move it once, by the part of the outage after the run became ready, however many detectors saw the outage."""
    run = db.start(no_match_timeout_seconds=100)
    due(db, run.run_id, "match_deadline_at", ago=10)
    unmatched_for(db, run.run_id, 1000)
    add_outage(db, "expiry", 200, 50)
    add_outage(db, "web", 190, 51)
    assert counts(db) == {}
    shown = timeout_at(db, run.run_id)
    assert shown is not None
    # ready 110 s ago, in the middle of the outage: 60 s of it count
    assert 0 < (shown - db.one("SELECT now()")).total_seconds() <= 50
    pass_time(db, "runs", "match_deadline_at", 55)
    for column in ("started_at", "ended_at"):
        pass_time(db, "gaps", column, 55)
    assert counts(db) == {"unmatched": 1}


def test_outage_before_readiness_does_not_move_match_deadline(db: DbVerbs) -> None:
    run = db.start(no_match_timeout_seconds=100)
    no_match_due(db, run.run_id, ago=10)
    add_outage(db, "expiry", 300, 150)
    unmatched_for(db, run.run_id, 1000)
    assert counts(db) == {"unmatched": 1}


def test_run_time_limit_moves_by_outage_it_lived_through(db: DbVerbs) -> None:
    """Allow for a runner that could not report the end."""
    run = running(db, run_timeout_seconds=100)
    db.rows("UPDATE runs SET started_at = now() - interval '105 seconds', run_deadline_at = now() - interval '5 s'")
    add_outage(db, "expiry", 80, 50)
    assert counts(db) == {"run deadlines moved": 1}
    left = db.one("SELECT extract(epoch FROM run_deadline_at - now()) FROM runs WHERE run_id = :r", r=run.run_id)
    assert float(left) == pytest.approx(25, abs=2)
    pass_time(db, "runs", "started_at", 30)
    pass_time(db, "runs", "run_deadline_at", 30)
    pass_time(db, "gaps", "started_at", 30)
    pass_time(db, "gaps", "ended_at", 30)
    assert counts(db) == {"timed out": 1}


def test_pass_is_bounded_and_asks_for_another(db: DbVerbs) -> None:
    runs = db.accept(*[start_submission() for _ in range(5)])
    for run in runs:
        no_match_due(db, run.run_id)
    results = [tick(db, at_most=2) for _ in range(4)]
    assert [result.counts.get("unmatched", 0) for result in results] == [2, 2, 1, 0]
    assert [result.again for result in results] == [True, True, False, False]


def test_parked_polls_of_silent_instance_are_removed(db: DbVerbs) -> None:
    """Remove them, or dispatch would assign runs to them."""
    poll = db.park(db.runner())
    kept = db.park(db.runner())
    pass_time(db, "waiting_polls", "seen_at", 31, "poll_id = :p", p=poll.poll_id)
    assert counts(db) == {"polls dropped": 1}
    assert db.waiting() == {kept.poll_id}


def test_current_limits_apply_to_stops_and_stored_deadlines_to_claims(db: DbVerbs) -> None:
    """Change the limits between claim and pass."""
    run = running(db, run_timeout_seconds=1)
    due(db, run.run_id, "run_deadline_at")
    assert counts(db, Limits(stop_timeout=1000)) == {"timed out": 1}
    assert db.run(run.run_id).run_deadline_at > db.one("SELECT now() + interval '990 seconds'")


def test_every_change_by_expiry_writes_its_event(db: DbVerbs) -> None:
    run = running(db, max_attempts=2, run_timeout_seconds=1)
    due(db, run.run_id, "run_deadline_at")
    counts(db)
    due(db, run.run_id, "run_deadline_at")
    counts(db)
    assert session_statuses(db, run.session_id)[-3:] == ["running", "stopping", "pending"]
    assert db.told_kinds(run.session_id)[-2:] == ["run_updated", "session_updated"]
    assert history(db, run.session_id) == ["run_start"]
    (again,) = db.claim(db.runner())
    assert again.attempt == 1
    db.do(report_runs, [report(again, Outcome.STARTED)])
    assert db.run(run.run_id).attempt == 2
    accepted(db, again, "completed")


def test_renewed_parked_poll_is_not_removed(db: DbVerbs) -> None:
    poll = poll_request(db.runner())
    assert db.answer(poll)[0].parked
    assert counts(db) == {}
    assert db.waiting() == {poll.poll_id}
