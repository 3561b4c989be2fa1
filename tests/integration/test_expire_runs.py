"""Deadlines of runs and claims on a real database: what a pass of expiry does, and does not do twice."""

import pytest

from models.claims.claim import Ask
from models.claims.matching import Demands
from models.core.limits import Limits
from models.core.statuses import Outcome
from models.runs.report import report_runs
from tests.support.clocks import add_gap, counts, due, pass_time, tick
from tests.support.db_verbs import DbVerbs, asking, starting
from tests.support.matching import no_match_due, timeout_at, unmatched_for
from tests.support.reports import accepted, claimed, history, idle, report, running, say, session_statuses, stop


def undelivered(db: DbVerbs) -> tuple[str, Ask]:
    """A run that a worker gave to a parked poll which has not fetched it."""
    runner = db.runner()
    poll = db.park(runner)
    run = db.start()
    assert db.dispatch() == {poll.poll_id: [run.run_id]}
    return run.run_id, poll


def test_nothing_due_changes_nothing(db: DbVerbs) -> None:
    """A pass over a system in good order leaves no trace but its clock."""
    running(db)
    db.start()
    before = db.rows("SELECT * FROM runs ORDER BY run_id"), db.count("events")
    result = tick(db)
    assert (result.counts, result.actors, result.again) == ({}, frozenset(), False)
    assert (db.rows("SELECT * FROM runs ORDER BY run_id"), db.count("events")) == before


def test_a_delay_that_has_ended_makes_its_run_ready(db: DbVerbs) -> None:
    """It may be claimed then, and its time to find a match begins."""
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


def test_a_delay_that_ended_long_ago_is_found_too(db: DbVerbs) -> None:
    """Nobody looked for an hour: by state, not by edge."""
    run = db.start(delay_seconds=3600)
    due(db, run.run_id, "not_before", ago=3600)
    assert counts(db) == {"ready": 1}


def test_a_due_run_behind_an_earlier_one_stays_unready(db: DbVerbs) -> None:
    """A session's runs go one at a time, in submission order."""
    first = db.start(delay_seconds=3600)
    second = db.resume(first.session_id, delay_seconds=60)
    due(db, second.run_id, "not_before")
    assert counts(db) == {}
    assert not db.run(second.run_id).ready


def test_a_missed_readiness_is_made_up_for(db: DbVerbs) -> None:
    """Whatever forgot to make a run ready."""
    run = db.start()
    db.rows("UPDATE runs SET ready = false, match_deadline_at = NULL WHERE run_id = :r", r=run.run_id)
    assert counts(db) == {"ready": 1}
    assert db.run(run.run_id).ready


def test_a_run_is_not_ready_while_a_stop_of_its_session_is_open(db: DbVerbs) -> None:
    """Deployed runners know sessions only: a new run must not be stopped by an old stop."""
    run = idle(db)
    stop(db, run.session_id)
    resumed = db.resume(run.session_id)
    assert counts(db) == {}
    assert not db.run(resumed.run_id).ready


def test_an_unmatched_resume_returns_an_idle_session_to_idle(db: DbVerbs) -> None:
    """Its process is alive all the same."""
    first = idle(db)
    run = db.resume(first.session_id, additional_demands=Demands(tags=("gpu",)))
    no_match_due(db, run.run_id)
    assert counts(db) == {"unmatched": 1}
    assert db.session(run.session_id).status == "idle"


def test_an_unmatched_run_makes_way_for_the_next(db: DbVerbs) -> None:
    """The next run of the session becomes ready with its own time."""
    first = db.start()
    second = db.resume(first.session_id)
    no_match_due(db, first.run_id)
    assert counts(db) == {"unmatched": 1}
    assert db.run(second.run_id).ready
    assert db.session(first.session_id).status == "pending"
    assert counts(db) == {}


def test_an_undelivered_claim_is_released_at_its_deadline(db: DbVerbs) -> None:
    """It costs the run nothing and bars nobody."""
    run_id, _ = undelivered(db)
    assert counts(db) == {}
    due(db, run_id, "claim_deadline_at")
    assert counts(db) == {"claims released": 1}
    row = db.run(run_id)
    assert (row.status, row.ready, row.claim_token, row.runner_id) == ("pending", True, None, None)
    assert (row.attempt, row.fruitless_claims, row.not_for) == (0, 0, None)


def test_a_delivered_claim_that_never_starts_is_released_and_not_given_to_that_registration_again(db: DbVerbs) -> None:
    """Unless the runner sends tokens, a late report of it could not be told from one of a new claim."""
    runner = db.runner()
    run = claimed(db, runner)
    due(db, run.run_id, "claim_deadline_at")
    assert counts(db) == {"claims released": 1}
    row = db.run(run.run_id)
    assert (row.status, row.fruitless_claims, row.not_for) == ("pending", 1, [runner.registration])
    assert db.claim(runner) == []


def test_a_runner_that_sends_tokens_may_claim_again_what_it_did_not_start(db: DbVerbs) -> None:
    """Its late report would carry the old token."""
    runner = db.runner()
    db.rows("UPDATE runners SET sends_tokens = true")
    run = claimed(db, runner)
    due(db, run.run_id, "claim_deadline_at")
    assert counts(db) == {"claims released": 1}
    assert db.run(run.run_id).not_for is None
    assert [one.run_id for one in db.claim(runner)] == [run.run_id]


def test_the_tenth_claim_that_never_starts_fails_the_run(db: DbVerbs) -> None:
    """Whatever eats it must not eat for ever."""
    run = claimed(db)
    db.rows("UPDATE runs SET fruitless_claims = 9")
    due(db, run.run_id, "claim_deadline_at")
    assert counts(db) == {"claims released": 1}
    row = db.run(run.run_id)
    assert (row.status, row.error) == ("failed", "Claimed 10 times, never started")


def test_a_stale_runner_loses_its_undelivered_claims_at_once(db: DbVerbs) -> None:
    """It will not fetch them: the run need not wait for the rest of the claim's time."""
    run_id, _ = undelivered(db)
    db.rows("UPDATE runners SET last_seen = now() - interval '121 seconds'")
    assert counts(db) == {"claims released": 1}
    assert db.run(run_id).status == "pending"


def test_a_stale_runner_keeps_what_was_delivered(db: DbVerbs) -> None:
    """It may be starting the process at this moment."""
    run = claimed(db)
    db.rows("UPDATE runners SET last_seen = now() - interval '121 seconds'")
    assert counts(db) == {}
    assert db.run(run.run_id).status == "claimed"


def test_a_run_past_its_own_limit_is_told_to_stop_first(db: DbVerbs) -> None:
    """The process is alive; its end comes by its report or by the deadline of the stop."""
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
def test_a_timed_out_run_that_does_not_end_is_given_up(db: DbVerbs, attempts: int, status: str) -> None:
    """Again if attempts are left, else failed with the limit in words."""
    run = running(db, run_timeout_seconds=5, max_attempts=attempts)
    due(db, run.run_id, "run_deadline_at")
    counts(db)
    due(db, run.run_id, "run_deadline_at")
    assert counts(db) == {"stops given up": 1}
    row = db.run(run.run_id)
    assert (row.status, row.error) == (status, "Run timed out after 5 s" if status == "failed" else None)
    assert db.count("stop_commands") == 0
    assert row.ready == (status == "pending")


def test_a_stopped_run_whose_runner_says_nothing_is_stopped_at_the_deadline(db: DbVerbs) -> None:
    """Never requeued: somebody wanted its end."""
    run = running(db, max_attempts=3)
    stop(db, run.session_id)
    assert counts(db) == {}
    due(db, run.run_id, "run_deadline_at")
    assert counts(db) == {"stops given up": 1}
    assert db.run(run.run_id).status == "stopped"
    assert db.session(run.session_id).status == "stopped"
    assert db.count("stop_commands") == 0


def test_an_idle_session_whose_runner_ignores_the_stop_is_stopped_at_the_deadline(db: DbVerbs) -> None:
    """Deployed runners ignore a stop for a process they do not have."""
    run = idle(db)
    stop(db, run.session_id)
    assert db.session(run.session_id).status == "stopping"
    pass_time(db, "stop_commands", "deadline_at", 3600)
    assert counts(db) == {"idle stops given up": 1}
    session = db.session(run.session_id)
    assert (session.status, session.runner_id) == ("stopped", None)
    assert db.count("stop_commands") == 0


def test_a_run_that_waited_for_a_stop_becomes_ready_when_the_stop_is_given_up(db: DbVerbs) -> None:
    """Its session is free again."""
    run = idle(db)
    stop(db, run.session_id)
    waiting = db.resume(run.session_id)
    pass_time(db, "stop_commands", "deadline_at", 3600)
    assert counts(db) == {"idle stops given up": 1}
    assert db.run(waiting.run_id).ready
    assert db.session(run.session_id).status == "pending"


def test_a_report_that_comes_after_expiry_ended_its_run_is_harmless(db: DbVerbs) -> None:
    """200 without a change: the runner has done nothing wrong."""
    run = running(db)
    stop(db, run.session_id)
    due(db, run.run_id, "run_deadline_at")
    counts(db)
    (result,) = say(db, report(run, "completed"))
    assert not getattr(result, "changed", True)
    assert db.run(run.run_id).status == "stopped"


def move_gaps(db: DbVerbs, seconds: float) -> None:
    """Let the gaps be so many seconds longer ago."""
    for column in ("started_at", "ended_at"):
        pass_time(db, "gaps", column, seconds)


def test_after_a_gap_claims_have_their_whole_time_again(db: DbVerbs) -> None:
    """While we were away nobody could deliver or start them."""
    run = claimed(db)
    run_id, _ = undelivered(db)
    due(db, run.run_id, "claim_deadline_at")
    due(db, run_id, "claim_deadline_at")
    add_gap(db, "expiry", 40, 5)
    assert counts(db) == {}
    move_gaps(db, 15)
    assert counts(db) == {"claims released": 1}
    assert db.run(run_id).status == "pending"
    move_gaps(db, 105)
    assert counts(db) == {"claims released": 1}


def test_after_a_gap_stops_have_their_whole_time_again(db: DbVerbs) -> None:
    """The runner could not hear of them."""
    run, other = running(db), idle(db)
    stop(db, run.session_id)
    stop(db, other.session_id)
    due(db, run.run_id, "run_deadline_at")
    pass_time(db, "stop_commands", "deadline_at", 200)
    add_gap(db, "expiry", 300, 170)
    db.rows("UPDATE runners SET last_seen = now()")
    assert counts(db) == {}
    move_gaps(db, 11)
    assert counts(db) == {"stops given up": 1, "idle stops given up": 1}


def test_the_time_to_find_a_match_moves_by_the_gap_it_lived_through(db: DbVerbs) -> None:
    """Once, and by the part of the gap after it became ready, however many clocks saw the gap."""
    run = db.start(no_match_timeout_seconds=100)
    due(db, run.run_id, "match_deadline_at", ago=10)
    unmatched_for(db, run.run_id, 1000)
    add_gap(db, "expiry", 200, 50)
    add_gap(db, "web", 190, 51)
    assert counts(db) == {}
    shown = timeout_at(db, run.run_id)
    assert shown is not None
    # ready 110 s ago, in the middle of the gap: 60 s of it count
    assert 0 < (shown - db.one("SELECT now()")).total_seconds() <= 50
    pass_time(db, "runs", "match_deadline_at", 55)
    for column in ("started_at", "ended_at"):
        pass_time(db, "gaps", column, 55)
    assert counts(db) == {"unmatched": 1}


def test_a_gap_before_a_run_became_ready_gives_it_nothing(db: DbVerbs) -> None:
    """It had its whole time."""
    run = db.start(no_match_timeout_seconds=100)
    no_match_due(db, run.run_id, ago=10)
    add_gap(db, "expiry", 300, 150)
    unmatched_for(db, run.run_id, 1000)
    assert counts(db) == {"unmatched": 1}


def test_the_limit_of_a_running_run_moves_by_the_gap_it_lived_through(db: DbVerbs) -> None:
    """Its runner may have been unable to report its end."""
    run = running(db, run_timeout_seconds=100)
    db.rows("UPDATE runs SET started_at = now() - interval '105 seconds', run_deadline_at = now() - interval '5 s'")
    add_gap(db, "expiry", 80, 50)
    assert counts(db) == {"run deadlines moved": 1}
    left = db.one("SELECT extract(epoch FROM run_deadline_at - now()) FROM runs WHERE run_id = :r", r=run.run_id)
    assert float(left) == pytest.approx(25, abs=2)
    pass_time(db, "runs", "started_at", 30)
    pass_time(db, "runs", "run_deadline_at", 30)
    pass_time(db, "gaps", "started_at", 30)
    pass_time(db, "gaps", "ended_at", 30)
    assert counts(db) == {"timed out": 1}


def test_a_pass_takes_so_many_and_asks_for_another(db: DbVerbs) -> None:
    """Bounded transactions, however much is due."""
    runs = db.accept(*[starting() for _ in range(5)])
    for run in runs:
        no_match_due(db, run.run_id)
    results = [tick(db, at_most=2) for _ in range(4)]
    assert [result.counts.get("unmatched", 0) for result in results] == [2, 2, 1, 0]
    assert [result.again for result in results] == [True, True, False, False]


def test_a_silent_web_processes_parked_polls_are_removed(db: DbVerbs) -> None:
    """Nobody would fetch what is dispatched to them."""
    poll = db.park(db.runner())
    kept = db.park(db.runner())
    pass_time(db, "waiting_polls", "seen_at", 31, "poll_id = :p", p=poll.poll_id)
    assert counts(db) == {"polls dropped": 1}
    assert db.waiting() == {kept.poll_id}


def test_the_limits_are_those_that_are_given(db: DbVerbs) -> None:
    """A claim made under other limits is judged by its own deadline, a stop by the limit of now."""
    run = running(db, run_timeout_seconds=1)
    due(db, run.run_id, "run_deadline_at")
    assert counts(db, Limits(stop_timeout=1000)) == {"timed out": 1}
    assert db.run(run.run_id).run_deadline_at > db.one("SELECT now() + interval '990 seconds'")


def test_every_move_of_expiry_is_told_on_the_feed(db: DbVerbs) -> None:
    """One history: whoever watches sees what expiry did."""
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


def test_a_poll_that_found_nothing_is_not_touched(db: DbVerbs) -> None:
    """Parked polls that are looked after stay."""
    poll = asking(db.runner())
    assert db.answer(poll)[0].parked
    assert counts(db) == {}
    assert db.waiting() == {poll.poll_id}
