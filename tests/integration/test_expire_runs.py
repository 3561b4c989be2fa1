"""Deadlines of runs and claims on a real database: what a pass of expiry does, and does not do twice."""

import pytest

from models.claims.claim import Ask
from models.claims.matching import Demands
from models.core.limits import Limits
from models.core.statuses import Outcome
from models.runs.report import report_runs
from tests.support.clocks import add_gap, counts, due, pass_time, tick
from tests.support.matching import no_match_due, timeout_at, unmatched_for
from tests.support.reports import accepted, claimed, history, idle, report, running, say, session_statuses, stop
from tests.support.truth import Truth, asking, starting


def undelivered(truth: Truth) -> tuple[str, Ask]:
    """A run that a worker gave to a parked poll which has not fetched it."""
    runner = truth.runner()
    poll = truth.park(runner)
    run = truth.start()
    assert truth.dispatch() == {poll.poll_id: [run.run_id]}
    return run.run_id, poll


def test_nothing_due_changes_nothing(truth: Truth) -> None:
    """A pass over a system in good order leaves no trace but its clock."""
    running(truth)
    truth.start()
    before = truth.rows("SELECT * FROM runs ORDER BY run_id"), truth.count("events")
    result = tick(truth)
    assert (result.counts, result.rings, result.again) == ({}, frozenset(), False)
    assert (truth.rows("SELECT * FROM runs ORDER BY run_id"), truth.count("events")) == before


def test_a_delay_that_has_ended_makes_its_run_ready(truth: Truth) -> None:
    """It may be claimed then, and its time to find a match begins."""
    run = truth.start(delay_seconds=3600)
    assert counts(truth) == {}
    due(truth, run.run_id, "not_before")
    result = tick(truth)
    assert result.counts == {"ready": 1}
    assert result.rings == {"dispatch", "broadcast", "callbacks"}
    row = truth.run(run.run_id)
    assert row.ready
    assert row.match_deadline_at is not None
    assert counts(truth) == {}


def test_a_delay_that_ended_long_ago_is_found_too(truth: Truth) -> None:
    """Nobody looked for an hour: by state, not by edge."""
    run = truth.start(delay_seconds=3600)
    due(truth, run.run_id, "not_before", ago=3600)
    assert counts(truth) == {"ready": 1}


def test_a_due_run_behind_an_earlier_one_stays_unready(truth: Truth) -> None:
    """A session's runs go one at a time, in submission order."""
    first = truth.start(delay_seconds=3600)
    second = truth.resume(first.session_id, delay_seconds=60)
    due(truth, second.run_id, "not_before")
    assert counts(truth) == {}
    assert not truth.run(second.run_id).ready


def test_a_missed_readiness_is_made_up_for(truth: Truth) -> None:
    """Whatever forgot to make a run ready."""
    run = truth.start()
    truth.rows("UPDATE runs SET ready = false, match_deadline_at = NULL WHERE run_id = :r", r=run.run_id)
    assert counts(truth) == {"ready": 1}
    assert truth.run(run.run_id).ready


def test_a_run_is_not_ready_while_a_stop_of_its_session_is_open(truth: Truth) -> None:
    """Deployed runners know sessions only: a new run must not be stopped by an old stop."""
    run = idle(truth)
    stop(truth, run.session_id)
    resumed = truth.resume(run.session_id)
    assert counts(truth) == {}
    assert not truth.run(resumed.run_id).ready


def test_an_unmatched_resume_returns_an_idle_session_to_idle(truth: Truth) -> None:
    """Its process is alive all the same."""
    first = idle(truth)
    run = truth.resume(first.session_id, additional_demands=Demands(tags=("gpu",)))
    no_match_due(truth, run.run_id)
    assert counts(truth) == {"unmatched": 1}
    assert truth.session(run.session_id).status == "idle"


def test_an_unmatched_run_makes_way_for_the_next(truth: Truth) -> None:
    """The next run of the session becomes ready with its own time."""
    first = truth.start()
    second = truth.resume(first.session_id)
    no_match_due(truth, first.run_id)
    assert counts(truth) == {"unmatched": 1}
    assert truth.run(second.run_id).ready
    assert truth.session(first.session_id).status == "pending"
    assert counts(truth) == {}


def test_an_undelivered_claim_is_released_at_its_deadline(truth: Truth) -> None:
    """It costs the run nothing and bars nobody."""
    run_id, _ = undelivered(truth)
    assert counts(truth) == {}
    due(truth, run_id, "claim_deadline_at")
    assert counts(truth) == {"claims released": 1}
    row = truth.run(run_id)
    assert (row.status, row.ready, row.claim_token, row.runner_id) == ("pending", True, None, None)
    assert (row.attempt, row.fruitless_claims, row.not_for) == (0, 0, None)


def test_a_delivered_claim_that_never_starts_is_released_and_not_given_to_that_registration_again(truth: Truth) -> None:
    """Unless the runner sends tokens, a late report of it could not be told from one of a new claim."""
    runner = truth.runner()
    run = claimed(truth, runner)
    due(truth, run.run_id, "claim_deadline_at")
    assert counts(truth) == {"claims released": 1}
    row = truth.run(run.run_id)
    assert (row.status, row.fruitless_claims, row.not_for) == ("pending", 1, [runner.registration])
    assert truth.claim(runner) == []


def test_a_runner_that_sends_tokens_may_claim_again_what_it_did_not_start(truth: Truth) -> None:
    """Its late report would carry the old token."""
    runner = truth.runner()
    truth.rows("UPDATE runners SET sends_tokens = true")
    run = claimed(truth, runner)
    due(truth, run.run_id, "claim_deadline_at")
    assert counts(truth) == {"claims released": 1}
    assert truth.run(run.run_id).not_for is None
    assert [one.run_id for one in truth.claim(runner)] == [run.run_id]


def test_the_tenth_claim_that_never_starts_fails_the_run(truth: Truth) -> None:
    """Whatever eats it must not eat for ever."""
    run = claimed(truth)
    truth.rows("UPDATE runs SET fruitless_claims = 9")
    due(truth, run.run_id, "claim_deadline_at")
    assert counts(truth) == {"claims released": 1}
    row = truth.run(run.run_id)
    assert (row.status, row.error) == ("failed", "Claimed 10 times, never started")


def test_a_stale_runner_loses_its_undelivered_claims_at_once(truth: Truth) -> None:
    """It will not fetch them: the run need not wait for the rest of the claim's time."""
    run_id, _ = undelivered(truth)
    truth.rows("UPDATE runners SET last_seen = now() - interval '121 seconds'")
    assert counts(truth) == {"claims released": 1}
    assert truth.run(run_id).status == "pending"


def test_a_stale_runner_keeps_what_was_delivered(truth: Truth) -> None:
    """It may be starting the process at this moment."""
    run = claimed(truth)
    truth.rows("UPDATE runners SET last_seen = now() - interval '121 seconds'")
    assert counts(truth) == {}
    assert truth.run(run.run_id).status == "claimed"


def test_a_run_past_its_own_limit_is_told_to_stop_first(truth: Truth) -> None:
    """The process is alive; its end comes by its report or by the deadline of the stop."""
    run = running(truth, run_timeout_seconds=5)
    due(truth, run.run_id, "run_deadline_at", ago=1)
    truth.rows("UPDATE runs SET started_at = now() - interval '6 seconds'")
    assert counts(truth) == {"timed out": 1}
    row = truth.run(run.run_id)
    assert (row.status, row.stop_cause) == ("stopping", "timeout")
    assert truth.count("stop_commands", "session_id = :s AND run_id = :r", s=run.session_id, r=run.run_id) == 1
    assert truth.session(run.session_id).status == "stopping"
    assert row.run_deadline_at > truth.one("SELECT now() + interval '170 seconds'")
    assert counts(truth) == {}


@pytest.mark.parametrize(("attempts", "status"), [(1, "failed"), (2, "pending")])
def test_a_timed_out_run_that_does_not_end_is_given_up(truth: Truth, attempts: int, status: str) -> None:
    """Again if attempts are left, else failed with the limit in words."""
    run = running(truth, run_timeout_seconds=5, max_attempts=attempts)
    due(truth, run.run_id, "run_deadline_at")
    counts(truth)
    due(truth, run.run_id, "run_deadline_at")
    assert counts(truth) == {"stops given up": 1}
    row = truth.run(run.run_id)
    assert (row.status, row.error) == (status, "Run timed out after 5 s" if status == "failed" else None)
    assert truth.count("stop_commands") == 0
    assert row.ready == (status == "pending")


def test_a_stopped_run_whose_runner_says_nothing_is_stopped_at_the_deadline(truth: Truth) -> None:
    """Never requeued: somebody wanted its end."""
    run = running(truth, max_attempts=3)
    stop(truth, run.session_id)
    assert counts(truth) == {}
    due(truth, run.run_id, "run_deadline_at")
    assert counts(truth) == {"stops given up": 1}
    assert truth.run(run.run_id).status == "stopped"
    assert truth.session(run.session_id).status == "stopped"
    assert truth.count("stop_commands") == 0


def test_an_idle_session_whose_runner_ignores_the_stop_is_stopped_at_the_deadline(truth: Truth) -> None:
    """Deployed runners ignore a stop for a process they do not have."""
    run = idle(truth)
    stop(truth, run.session_id)
    assert truth.session(run.session_id).status == "stopping"
    pass_time(truth, "stop_commands", "deadline_at", 3600)
    assert counts(truth) == {"idle stops given up": 1}
    session = truth.session(run.session_id)
    assert (session.status, session.runner_id) == ("stopped", None)
    assert truth.count("stop_commands") == 0


def test_a_run_that_waited_for_a_stop_becomes_ready_when_the_stop_is_given_up(truth: Truth) -> None:
    """Its session is free again."""
    run = idle(truth)
    stop(truth, run.session_id)
    waiting = truth.resume(run.session_id)
    pass_time(truth, "stop_commands", "deadline_at", 3600)
    assert counts(truth) == {"idle stops given up": 1}
    assert truth.run(waiting.run_id).ready
    assert truth.session(run.session_id).status == "pending"


def test_a_report_that_comes_after_expiry_ended_its_run_is_harmless(truth: Truth) -> None:
    """200 without a change: the runner has done nothing wrong."""
    run = running(truth)
    stop(truth, run.session_id)
    due(truth, run.run_id, "run_deadline_at")
    counts(truth)
    (result,) = say(truth, report(run, "completed"))
    assert not getattr(result, "changed", True)
    assert truth.run(run.run_id).status == "stopped"


def move_gaps(truth: Truth, seconds: float) -> None:
    """Let the gaps be so many seconds longer ago."""
    for column in ("started_at", "ended_at"):
        pass_time(truth, "gaps", column, seconds)


def test_after_a_gap_claims_have_their_whole_time_again(truth: Truth) -> None:
    """While we were away nobody could deliver or start them."""
    run = claimed(truth)
    run_id, _ = undelivered(truth)
    due(truth, run.run_id, "claim_deadline_at")
    due(truth, run_id, "claim_deadline_at")
    add_gap(truth, "expiry", 40, 5)
    assert counts(truth) == {}
    move_gaps(truth, 15)
    assert counts(truth) == {"claims released": 1}
    assert truth.run(run_id).status == "pending"
    move_gaps(truth, 105)
    assert counts(truth) == {"claims released": 1}


def test_after_a_gap_stops_have_their_whole_time_again(truth: Truth) -> None:
    """The runner could not hear of them."""
    run, other = running(truth), idle(truth)
    stop(truth, run.session_id)
    stop(truth, other.session_id)
    due(truth, run.run_id, "run_deadline_at")
    pass_time(truth, "stop_commands", "deadline_at", 200)
    add_gap(truth, "expiry", 300, 170)
    truth.rows("UPDATE runners SET last_seen = now()")
    assert counts(truth) == {}
    move_gaps(truth, 11)
    assert counts(truth) == {"stops given up": 1, "idle stops given up": 1}


def test_the_time_to_find_a_match_moves_by_the_gap_it_lived_through(truth: Truth) -> None:
    """Once, and by the part of the gap after it became ready, however many clocks saw the gap."""
    run = truth.start(no_match_timeout_seconds=100)
    due(truth, run.run_id, "match_deadline_at", ago=10)
    unmatched_for(truth, run.run_id, 1000)
    add_gap(truth, "expiry", 200, 50)
    add_gap(truth, "web", 190, 51)
    assert counts(truth) == {}
    shown = timeout_at(truth, run.run_id)
    assert shown is not None
    # ready 110 s ago, in the middle of the gap: 60 s of it count
    assert 0 < (shown - truth.one("SELECT now()")).total_seconds() <= 50
    pass_time(truth, "runs", "match_deadline_at", 55)
    for column in ("started_at", "ended_at"):
        pass_time(truth, "gaps", column, 55)
    assert counts(truth) == {"unmatched": 1}


def test_a_gap_before_a_run_became_ready_gives_it_nothing(truth: Truth) -> None:
    """It had its whole time."""
    run = truth.start(no_match_timeout_seconds=100)
    no_match_due(truth, run.run_id, ago=10)
    add_gap(truth, "expiry", 300, 150)
    unmatched_for(truth, run.run_id, 1000)
    assert counts(truth) == {"unmatched": 1}


def test_the_limit_of_a_running_run_moves_by_the_gap_it_lived_through(truth: Truth) -> None:
    """Its runner may have been unable to report its end."""
    run = running(truth, run_timeout_seconds=100)
    truth.rows("UPDATE runs SET started_at = now() - interval '105 seconds', run_deadline_at = now() - interval '5 s'")
    add_gap(truth, "expiry", 80, 50)
    assert counts(truth) == {"run deadlines moved": 1}
    left = truth.one("SELECT extract(epoch FROM run_deadline_at - now()) FROM runs WHERE run_id = :r", r=run.run_id)
    assert float(left) == pytest.approx(25, abs=2)
    pass_time(truth, "runs", "started_at", 30)
    pass_time(truth, "runs", "run_deadline_at", 30)
    pass_time(truth, "gaps", "started_at", 30)
    pass_time(truth, "gaps", "ended_at", 30)
    assert counts(truth) == {"timed out": 1}


def test_a_pass_takes_so_many_and_asks_for_another(truth: Truth) -> None:
    """Bounded transactions, however much is due."""
    runs = truth.accept(*[starting() for _ in range(5)])
    for run in runs:
        no_match_due(truth, run.run_id)
    results = [tick(truth, at_most=2) for _ in range(4)]
    assert [result.counts.get("unmatched", 0) for result in results] == [2, 2, 1, 0]
    assert [result.again for result in results] == [True, True, False, False]


def test_a_silent_web_processes_parked_polls_are_removed(truth: Truth) -> None:
    """Nobody would fetch what is dispatched to them."""
    poll = truth.park(truth.runner())
    kept = truth.park(truth.runner())
    pass_time(truth, "waiting_polls", "seen_at", 31, "poll_id = :p", p=poll.poll_id)
    assert counts(truth) == {"polls dropped": 1}
    assert truth.waiting() == {kept.poll_id}


def test_the_limits_are_those_that_are_given(truth: Truth) -> None:
    """A claim made under other limits is judged by its own deadline, a stop by the limit of now."""
    run = running(truth, run_timeout_seconds=1)
    due(truth, run.run_id, "run_deadline_at")
    assert counts(truth, Limits(stop_timeout=1000)) == {"timed out": 1}
    assert truth.run(run.run_id).run_deadline_at > truth.one("SELECT now() + interval '990 seconds'")


def test_every_move_of_expiry_is_told_on_the_feed(truth: Truth) -> None:
    """One history: whoever watches sees what expiry did."""
    run = running(truth, max_attempts=2, run_timeout_seconds=1)
    due(truth, run.run_id, "run_deadline_at")
    counts(truth)
    due(truth, run.run_id, "run_deadline_at")
    counts(truth)
    assert session_statuses(truth, run.session_id)[-3:] == ["running", "stopping", "pending"]
    assert truth.told_kinds(run.session_id)[-2:] == ["run_updated", "session_updated"]
    assert history(truth, run.session_id) == ["run_start"]
    (again,) = truth.claim(truth.runner())
    assert again.attempt == 1
    truth.do(report_runs, [report(again, Outcome.STARTED)])
    assert truth.run(run.run_id).attempt == 2
    accepted(truth, again, "completed")


def test_a_poll_that_found_nothing_is_not_touched(truth: Truth) -> None:
    """Parked polls that are looked after stay."""
    poll = asking(truth.runner())
    assert truth.answer(poll)[0].parked
    assert counts(truth) == {}
    assert truth.waiting() == {poll.poll_id}
