"""Lost, gone and replaced runners on a real database: what they held is taken from them, by state, and told."""

import pytest

from models.core.callers import ADMIN
from models.core.errors import RunnerNotRegistered
from models.core.limits import Limits
from models.core.statuses import Outcome
from models.feed.append import NewEvent, append_events
from models.runners.heartbeat import Heard, Touch, touch_runners
from models.runners.leave import LeaveRunner, Left, deregister_runners
from models.runners.listing import list_runners
from models.runs.report import Reported
from tests.support.clocks import add_gap, counts, due, fall_silent, pass_time, tick
from tests.support.reports import OWN, accepted, claimed, idle, report, running, say, stop
from tests.support.truth import Runner, Truth, asking

LOST = 181  # three times what runners without an instance are told


def test_a_runner_is_lost_only_after_three_times_its_told_interval(truth: Truth) -> None:
    """Deployed runners beat every 60 s, whatever we tell them."""
    runner = truth.runner()
    run = running(truth, runner)
    fall_silent(truth, runner, 170)
    assert counts(truth) == {}
    fall_silent(truth, runner, LOST)
    assert counts(truth) == {"runners lost": 1, "runs taken": 1}
    assert truth.run(run.run_id).status == "failed"


def test_a_runner_that_is_told_a_short_interval_is_lost_after_lost_after(truth: Truth) -> None:
    """At least 60 s: a short interval is a wish, not a verdict."""
    runner = truth.runner(told_interval=10)
    running(truth, runner)
    fall_silent(truth, runner, 55)
    assert counts(truth) == {}
    fall_silent(truth, runner, 61)
    assert counts(truth)["runners lost"] == 1


@pytest.mark.parametrize(("attempts", "status"), [(1, "failed"), (2, "pending")])
def test_a_lost_runners_running_run_goes_again_or_fails(truth: Truth, attempts: int, status: str) -> None:
    """With the known words, and the session told."""
    runner = truth.runner()
    run = running(truth, runner, max_attempts=attempts)
    fall_silent(truth, runner, LOST)
    result = tick(truth)
    assert result.rings == {"dispatch", "broadcast", "callbacks"}
    row, session = truth.run(run.run_id), truth.session(run.session_id)
    assert row.status == status
    assert session.runner_id is None
    if status == "failed":
        assert row.error == f"Runner lost: no sign of life for {LOST} s"
        assert session.status == "failed"
        assert "run_failed" in truth.told_kinds(run.session_id)
    else:
        assert (row.claim_token, row.ready, session.status) == (None, True, "pending")
    assert tick(truth).counts == {}


def test_a_lost_runners_claims_are_released_and_stops_end_stopped(truth: Truth) -> None:
    """A claim costs the run nothing; what somebody wanted stopped is stopped, also with attempts left."""
    runner = truth.runner()
    waiting, stopping = claimed(truth, runner), running(truth, runner, max_attempts=5)
    stop(truth, stopping.session_id)
    fall_silent(truth, runner, LOST)
    assert counts(truth) == {"runners lost": 1, "runs taken": 2}
    assert truth.run(waiting.run_id).status == "pending"
    assert truth.run(stopping.run_id).status == "stopped"
    assert truth.count("stop_commands") == 0


def test_a_lost_runners_idle_sessions_are_finished_or_stopped(truth: Truth) -> None:
    """Their process is gone with it; where a stop was open it is done."""
    runner = truth.runner()
    calm, stopping = idle(truth, runner), idle(truth, runner)
    stop(truth, stopping.session_id)
    fall_silent(truth, runner, LOST)
    counts(truth)
    assert (truth.session(calm.session_id).status, truth.session(calm.session_id).runner_id) == ("finished", None)
    assert truth.session(stopping.session_id).status == "stopped"
    assert truth.count("stop_commands") == 0


def test_a_lost_runner_is_online_again_with_its_next_request_without_its_runs(truth: Truth) -> None:
    """It may work on, but not on what is somebody else's by now."""
    runner = truth.runner()
    run = running(truth, runner, max_attempts=2)
    fall_silent(truth, runner, LOST)
    counts(truth)
    assert truth.do(list_runners)[0].lost
    assert truth.do(touch_runners, [Touch(runner.runner_id)]) == [Heard()]
    info = truth.do(list_runners)[0]
    assert (info.status, info.lost, info.runs_in_hand) == ("online", False, 0)
    assert counts(truth) == {}
    assert truth.run(run.run_id).status == "pending"


def test_a_lost_runner_that_polls_keeps_what_it_is_given(truth: Truth) -> None:
    """It is online before it claims: the next pass takes nothing from it."""
    runner = truth.runner()
    fall_silent(truth, runner, LOST)
    assert counts(truth) == {"runners lost": 1}
    run = claimed(truth, runner)
    assert counts(truth) == {}
    assert truth.run(run.run_id).status == "claimed"


def test_nothing_is_dispatched_to_a_lost_runner(truth: Truth) -> None:
    """It is not there; a poll that comes back makes it online first."""
    runner = truth.runner()
    poll = truth.park(runner)
    fall_silent(truth, runner, LOST)
    assert counts(truth) == {"runners lost": 1}
    run = truth.start()
    assert truth.dispatch() == {}
    assert [one.run_id for one in truth.recheck(poll)[0].runs] == [run.run_id]
    assert counts(truth) == {}


def test_a_lost_runner_cannot_finish_a_run_given_to_another(truth: Truth) -> None:
    """One owner: its token is not the run's any more."""
    lost, other = truth.runner(), truth.runner()
    run = running(truth, lost, max_attempts=2)
    fall_silent(truth, lost, LOST)
    counts(truth)
    (again,) = truth.claim(other)
    assert again.run_id == run.run_id
    (late,) = say(truth, report(run, "completed"))
    assert type(late).__name__ == "StaleClaim"
    assert truth.run(run.run_id).runner_id == other.runner_id


def test_what_a_lost_runner_still_holds_is_taken_by_state(truth: Truth) -> None:
    """However the edge was missed: a crash between noting the loss and taking the runs."""
    runner = truth.runner()
    run = running(truth, runner)
    truth.rows("UPDATE runners SET lost_at = now()")
    assert counts(truth) == {"runs taken": 1}
    assert truth.run(run.run_id).status == "failed"


def test_runs_of_an_unknown_runner_and_of_a_former_registration_are_taken(truth: Truth) -> None:
    """Nobody can report their end."""
    gone, replaced = truth.runner(), truth.runner()
    first, second = running(truth, gone), running(truth, replaced, max_attempts=2)
    truth.rows("DELETE FROM runners WHERE runner_id = :r", r=gone.runner_id)
    truth.rows(
        "UPDATE runners SET registration = nextval('runner_registration') WHERE runner_id = :r", r=replaced.runner_id
    )
    assert counts(truth) == {"runs taken": 2}
    assert (truth.run(first.run_id).status, truth.run(second.run_id).status) == ("failed", "pending")
    assert truth.run(second.run_id).not_for == [replaced.registration]


def test_a_session_of_another_live_runner_keeps_its_process(truth: Truth) -> None:
    """Only what is the lost one's is taken."""
    lost, alive = truth.runner(), truth.runner()
    run = running(truth, lost)
    kept, working = idle(truth, alive), running(truth, alive)
    fall_silent(truth, lost, LOST)
    counts(truth)
    assert truth.run(run.run_id).status == "failed"
    assert truth.session(kept.session_id).status == "idle"
    assert truth.run(working.run_id).status == "running"


def test_a_runner_that_leaves_by_itself_leaves_its_work_at_once(truth: Truth) -> None:
    """Claimed pending, running as when lost, stopping stopped, idle sessions finished."""
    runner = truth.runner()
    waiting, active, stopping = claimed(truth, runner), running(truth, runner), running(truth, runner)
    calm = idle(truth, runner)
    stop(truth, stopping.session_id)
    assert leave(truth, runner, itself=True) == Left(runner.runner_id, "self")
    statuses = [truth.run(run.run_id).status for run in (waiting, active, stopping)]
    assert statuses == ["pending", "failed", "stopped"]
    assert truth.session(calm.session_id).status == "finished"
    assert truth.run(active.run_id).error.startswith("Runner lost")
    assert truth.do(touch_runners, [Touch(runner.runner_id)]) == [RunnerNotRegistered(runner.runner_id)]
    assert truth.do(list_runners) == []
    assert leave(truth, runner, itself=True) == Left(runner.runner_id, "self")
    assert counts(truth) == {}


def leave(truth: Truth, runner: Runner, *, itself: bool) -> object:
    return truth.do(deregister_runners, [LeaveRunner(runner.runner_id, itself)])[0]


def test_a_runner_sent_away_hears_of_it_on_its_next_poll(truth: Truth) -> None:
    """Until then it is as before; after that it is not registered, but its reports count for a while."""
    runner = truth.runner()
    run = running(truth, runner)
    assert leave(truth, runner, itself=False) == Left(runner.runner_id, "external")
    assert truth.do(touch_runners, [Touch(runner.runner_id)]) == [Heard()]
    assert counts(truth) == {}
    assert truth.answer(asking(runner))[0].deregistered
    assert truth.do(touch_runners, [Touch(runner.runner_id)]) == [RunnerNotRegistered(runner.runner_id)]
    assert truth.do(list_runners) == []
    assert counts(truth) == {}
    accepted(truth, run, "completed")
    assert truth.run(run.run_id).status == "completed"


def test_what_a_runner_sent_away_still_holds_after_its_time_is_lost(truth: Truth) -> None:
    """It had three beats to report."""
    runner = truth.runner()
    run = running(truth, runner)
    leave(truth, runner, itself=False)
    truth.rows("UPDATE runners SET leave_told_at = now() - interval '170 seconds'")
    assert counts(truth) == {}
    truth.rows("UPDATE runners SET leave_told_at = now() - interval '181 seconds'")
    assert counts(truth) == {"runners gone": 1, "runs taken": 1}
    assert truth.run(run.run_id).status == "failed"
    (late,) = say(truth, report(run, "completed"))
    assert isinstance(late, RunnerNotRegistered)


def test_a_lost_runner_that_was_to_leave_is_gone(truth: Truth) -> None:
    """Nobody waits for it to be told."""
    runner = truth.runner()
    leave(truth, runner, itself=False)
    fall_silent(truth, runner, LOST)
    assert counts(truth) == {"runners lost": 1, "runners gone": 1}
    assert truth.do(list_runners) == []


def beat(truth: Truth, runner: Runner, *run_ids: str) -> None:
    """A heartbeat that names what the runner holds, some time after the last one."""
    pass_time(truth, "runners", "counted_beat_at", 10)
    assert truth.do(touch_runners, [Touch(runner.runner_id, run_ids)]) == [Heard()]


def test_a_run_that_two_beats_do_not_name_is_lost(truth: Truth) -> None:
    """The runner lives, but does not have it: its end report was lost, or it never began."""
    runner = truth.runner()
    kept, gone = running(truth, runner), running(truth, runner, max_attempts=2)
    pass_time(truth, "runs", "started_at", 61)
    beat(truth, runner, kept.run_id)
    assert counts(truth) == {}
    beat(truth, runner, kept.run_id)
    assert counts(truth) == {"runs not held": 1}
    assert (truth.run(kept.run_id).status, truth.run(gone.run_id).status) == ("running", "pending")


def test_a_run_named_in_between_is_not_lost(truth: Truth) -> None:
    """Two beats in a row, not two in all."""
    runner = truth.runner()
    run = running(truth, runner)
    pass_time(truth, "runs", "started_at", 61)
    for named in ([], [run.run_id], [], [run.run_id]):
        beat(truth, runner, *named)
    assert counts(truth) == {}


def test_a_run_that_started_lately_is_not_missed_in_a_beat(truth: Truth) -> None:
    """The list may be older than the start."""
    runner = truth.runner()
    run = running(truth, runner)
    pass_time(truth, "runs", "started_at", 50)
    beat(truth, runner)
    beat(truth, runner)
    assert counts(truth) == {}
    assert truth.run(run.run_id).unheld_beats == 0


def test_one_beat_that_is_delivered_twice_counts_once(truth: Truth) -> None:
    """A batch whose answer was lost is repeated; so is a beat that was held while Postgres was away."""
    runner = truth.runner()
    run = running(truth, runner)
    pass_time(truth, "runs", "started_at", 61)
    for _ in range(3):
        truth.do(touch_runners, [Touch(runner.runner_id, ()), Touch(runner.runner_id, ())])
    assert truth.run(run.run_id).unheld_beats == 1
    assert counts(truth) == {}


def test_a_beat_that_names_nothing_about_runs_accuses_none(truth: Truth) -> None:
    """Deployed runners never say what they hold."""
    runner = truth.runner()
    run = running(truth, runner)
    pass_time(truth, "runs", "started_at", 3600)
    for _ in range(3):
        truth.do(touch_runners, [Touch(runner.runner_id)])
    assert truth.run(run.run_id).unheld_beats == 0
    assert not truth.one("SELECT sends_holding FROM runners")


def through_a_gap(truth: Truth, runner: Runner, *, length: float = 60, ago: float = 901, **values: int) -> str:
    """A run that was running when we were away for so long, that long ago, and gave no sign since."""
    run = running(truth, runner, **values)
    orphan(truth, length=length, ago=ago)
    return run.run_id


def orphan(truth: Truth, *, length: float = 60, ago: float = 901) -> None:
    """Let all that has happened so far have happened before a gap of this length, that long ago."""
    add_gap(truth, "expiry", ago + length, ago)
    pass_time(truth, "runs", "started_at", ago + length + 100)
    pass_time(truth, "sessions", "last_sign_at", ago + length + 100)


def test_a_silent_run_that_lived_through_a_long_gap_of_ours_is_taken_after_a_while(truth: Truth) -> None:
    """A deployed runner sends each report once: its end may have been reported while nobody heard it."""
    run_id = through_a_gap(truth, truth.runner(), max_attempts=2)
    assert counts(truth) == {"runs orphaned": 1}
    assert truth.run(run_id).status == "pending"


@pytest.mark.parametrize(
    ("length", "ago"),
    [(20, 901), (60, 800)],
    ids=["a report is held for longer than the gap", "the time is not up"],
)
def test_a_run_is_no_orphan_while_its_report_may_still_come(truth: Truth, length: float, ago: float) -> None:
    """Reports are held and repeated for a while."""
    run_id = through_a_gap(truth, truth.runner(), length=length, ago=ago)
    assert counts(truth) == {}
    assert truth.run(run_id).status == "running"


def test_a_run_with_a_sign_of_its_session_is_no_orphan(truth: Truth) -> None:
    """An event is sign enough; silent work without a gap never is suspect."""
    runner = truth.runner()
    run_id = through_a_gap(truth, runner)
    session_id = truth.run(run_id).session_id
    event = NewEvent(session_id, ADMIN, "message", '{"data":{"event_type":"message"}}')
    truth.do(append_events, [event])
    assert counts(truth) == {}


@pytest.mark.parametrize("token", [OWN, None])
def test_a_runner_that_asks_whether_the_run_is_still_its_own_has_no_orphan(truth: Truth, token: str | None) -> None:
    """A repeated `started` changes nothing, but it is a sign."""
    run = running(truth)
    orphan(truth)
    (answer,) = say(truth, report(run, "started", token=token))
    assert isinstance(answer, Reported)
    assert counts(truth) == {}


def test_what_clients_do_to_a_session_is_no_sign_of_its_process(truth: Truth) -> None:
    """Somebody who waits in vain submits another turn: that must not keep the dead one for ever."""
    run = running(truth)
    orphan(truth)
    waiting = truth.resume(run.session_id)
    assert counts(truth) == {"runs orphaned": 1}
    assert truth.run(run.run_id).status == "failed"
    assert truth.run(waiting.run_id).ready


def test_a_runner_that_says_what_it_holds_has_no_orphans(truth: Truth) -> None:
    """Its beats tell."""
    runner = truth.runner()
    run_id = through_a_gap(truth, runner)
    truth.do(touch_runners, [Touch(runner.runner_id, (run_id,))])
    assert counts(truth) == {}


def test_orphans_are_left_alone_where_the_rule_is_switched_off(truth: Truth) -> None:
    """orphan_after 0."""
    run_id = through_a_gap(truth, truth.runner())
    assert counts(truth, Limits(orphan_after=0)) == {}
    assert truth.run(run_id).status == "running"


def test_a_run_in_stop_is_taken_with_its_lost_runner_though_its_time_is_up_too(truth: Truth) -> None:
    """Two reasons in one pass end it once."""
    runner = truth.runner()
    run = running(truth, runner)
    stop(truth, run.session_id)
    due(truth, run.run_id, "run_deadline_at")
    fall_silent(truth, runner, LOST)
    assert counts(truth) == {"runners lost": 1, "runs taken": 1}
    assert truth.run(run.run_id).status == "stopped"
    assert truth.told_kinds(run.session_id).count("run_failed") == 0
    assert truth.run(run.run_id).status == Outcome.STOPPED


def test_a_lost_claim_leaves_the_process_of_another_runner_alive(truth: Truth) -> None:
    """A session idle at one runner, its next turn claimed by another that is lost: the first one is still told to stop."""
    home, other = truth.runner(), truth.runner()
    run = idle(truth, home)
    truth.resume(run.session_id)
    truth.claim(other)
    fall_silent(truth, other, LOST)
    tick(truth)

    assert truth.session(run.session_id).runner_id == home.runner_id
    assert stop(truth, run.session_id).status == "stopping"
