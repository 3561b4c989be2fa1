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
from tests.support.db_verbs import DbVerbs, Runner, asking
from tests.support.reports import OWN, accepted, claimed, idle, report, running, say, stop

LOST = 181  # three times what runners without an instance are told


def test_a_runner_is_lost_only_after_three_times_its_told_interval(db: DbVerbs) -> None:
    """Deployed runners beat every 60 s, whatever we tell them."""
    runner = db.runner()
    run = running(db, runner)
    fall_silent(db, runner, 170)
    assert counts(db) == {}
    fall_silent(db, runner, LOST)
    assert counts(db) == {"runners lost": 1, "runs taken": 1}
    assert db.run(run.run_id).status == "failed"


def test_a_runner_that_is_told_a_short_interval_is_lost_after_lost_after(db: DbVerbs) -> None:
    """At least 60 s: a short interval is a wish, not a verdict."""
    runner = db.runner(told_interval=10)
    running(db, runner)
    fall_silent(db, runner, 55)
    assert counts(db) == {}
    fall_silent(db, runner, 61)
    assert counts(db)["runners lost"] == 1


@pytest.mark.parametrize(("attempts", "status"), [(1, "failed"), (2, "pending")])
def test_a_lost_runners_running_run_goes_again_or_fails(db: DbVerbs, attempts: int, status: str) -> None:
    """With the known words, and the session told."""
    runner = db.runner()
    run = running(db, runner, max_attempts=attempts)
    fall_silent(db, runner, LOST)
    result = tick(db)
    assert result.actors == {"dispatch", "broadcast", "callbacks"}
    row, session = db.run(run.run_id), db.session(run.session_id)
    assert row.status == status
    assert session.runner_id is None
    if status == "failed":
        assert row.error == f"Runner lost: no sign of life for {LOST} s"
        assert session.status == "failed"
        assert "run_failed" in db.told_kinds(run.session_id)
    else:
        assert (row.claim_token, row.ready, session.status) == (None, True, "pending")
    assert tick(db).counts == {}


def test_a_lost_runners_claims_are_released_and_stops_end_stopped(db: DbVerbs) -> None:
    """A claim costs the run nothing; what somebody wanted stopped is stopped, also with attempts left."""
    runner = db.runner()
    waiting, stopping = claimed(db, runner), running(db, runner, max_attempts=5)
    stop(db, stopping.session_id)
    fall_silent(db, runner, LOST)
    assert counts(db) == {"runners lost": 1, "runs taken": 2}
    assert db.run(waiting.run_id).status == "pending"
    assert db.run(stopping.run_id).status == "stopped"
    assert db.count("stop_commands") == 0


def test_a_lost_runners_idle_sessions_are_finished_or_stopped(db: DbVerbs) -> None:
    """Their process is gone with it; where a stop was open it is done."""
    runner = db.runner()
    calm, stopping = idle(db, runner), idle(db, runner)
    stop(db, stopping.session_id)
    fall_silent(db, runner, LOST)
    counts(db)
    assert (db.session(calm.session_id).status, db.session(calm.session_id).runner_id) == ("finished", None)
    assert db.session(stopping.session_id).status == "stopped"
    assert db.count("stop_commands") == 0


def test_a_lost_runner_is_online_again_with_its_next_request_without_its_runs(db: DbVerbs) -> None:
    """It may work on, but not on what is somebody else's by now."""
    runner = db.runner()
    run = running(db, runner, max_attempts=2)
    fall_silent(db, runner, LOST)
    counts(db)
    assert db.do(list_runners)[0].lost
    assert db.do(touch_runners, [Touch(runner.runner_id)]) == [Heard()]
    info = db.do(list_runners)[0]
    assert (info.status, info.lost, info.runs_in_hand) == ("online", False, 0)
    assert counts(db) == {}
    assert db.run(run.run_id).status == "pending"


def test_a_lost_runner_that_polls_keeps_what_it_is_given(db: DbVerbs) -> None:
    """It is online before it claims: the next pass takes nothing from it."""
    runner = db.runner()
    fall_silent(db, runner, LOST)
    assert counts(db) == {"runners lost": 1}
    run = claimed(db, runner)
    assert counts(db) == {}
    assert db.run(run.run_id).status == "claimed"


def test_nothing_is_dispatched_to_a_lost_runner(db: DbVerbs) -> None:
    """It is not there; a poll that comes back makes it online first."""
    runner = db.runner()
    poll = db.park(runner)
    fall_silent(db, runner, LOST)
    assert counts(db) == {"runners lost": 1}
    run = db.start()
    assert db.dispatch() == {}
    assert [one.run_id for one in db.recheck(poll)[0].runs] == [run.run_id]
    assert counts(db) == {}


def test_a_lost_runner_cannot_finish_a_run_given_to_another(db: DbVerbs) -> None:
    """One owner: its token is not the run's any more."""
    lost, other = db.runner(), db.runner()
    run = running(db, lost, max_attempts=2)
    fall_silent(db, lost, LOST)
    counts(db)
    (again,) = db.claim(other)
    assert again.run_id == run.run_id
    (late,) = say(db, report(run, "completed"))
    assert type(late).__name__ == "StaleClaim"
    assert db.run(run.run_id).runner_id == other.runner_id


def test_what_a_lost_runner_still_holds_is_taken_by_state(db: DbVerbs) -> None:
    """However the edge was missed: a crash between noting the loss and taking the runs."""
    runner = db.runner()
    run = running(db, runner)
    db.rows("UPDATE runners SET lost_at = now()")
    assert counts(db) == {"runs taken": 1}
    assert db.run(run.run_id).status == "failed"


def test_runs_of_an_unknown_runner_and_of_a_former_registration_are_taken(db: DbVerbs) -> None:
    """Nobody can report their end."""
    gone, replaced = db.runner(), db.runner()
    first, second = running(db, gone), running(db, replaced, max_attempts=2)
    db.rows("DELETE FROM runners WHERE runner_id = :r", r=gone.runner_id)
    db.rows(
        "UPDATE runners SET registration = nextval('runner_registration') WHERE runner_id = :r", r=replaced.runner_id
    )
    assert counts(db) == {"runs taken": 2}
    assert (db.run(first.run_id).status, db.run(second.run_id).status) == ("failed", "pending")
    assert db.run(second.run_id).not_for == [replaced.registration]


def test_a_session_of_another_live_runner_keeps_its_process(db: DbVerbs) -> None:
    """Only what is the lost one's is taken."""
    lost, alive = db.runner(), db.runner()
    run = running(db, lost)
    kept, working = idle(db, alive), running(db, alive)
    fall_silent(db, lost, LOST)
    counts(db)
    assert db.run(run.run_id).status == "failed"
    assert db.session(kept.session_id).status == "idle"
    assert db.run(working.run_id).status == "running"


def test_a_runner_that_leaves_by_itself_leaves_its_work_at_once(db: DbVerbs) -> None:
    """Claimed pending, running as when lost, stopping stopped, idle sessions finished."""
    runner = db.runner()
    waiting, active, stopping = claimed(db, runner), running(db, runner), running(db, runner)
    calm = idle(db, runner)
    stop(db, stopping.session_id)
    assert leave(db, runner, itself=True) == Left(runner.runner_id, "self")
    statuses = [db.run(run.run_id).status for run in (waiting, active, stopping)]
    assert statuses == ["pending", "failed", "stopped"]
    assert db.session(calm.session_id).status == "finished"
    assert db.run(active.run_id).error.startswith("Runner lost")
    assert db.do(touch_runners, [Touch(runner.runner_id)]) == [RunnerNotRegistered(runner.runner_id)]
    assert db.do(list_runners) == []
    assert leave(db, runner, itself=True) == Left(runner.runner_id, "self")
    assert counts(db) == {}


def leave(db: DbVerbs, runner: Runner, *, itself: bool) -> object:
    return db.do(deregister_runners, [LeaveRunner(runner.runner_id, itself)])[0]


def test_a_runner_sent_away_hears_of_it_on_its_next_poll(db: DbVerbs) -> None:
    """Until then it is as before; after that it is not registered, but its reports count for a while."""
    runner = db.runner()
    run = running(db, runner)
    assert leave(db, runner, itself=False) == Left(runner.runner_id, "external")
    assert db.do(touch_runners, [Touch(runner.runner_id)]) == [Heard()]
    assert counts(db) == {}
    assert db.answer(asking(runner))[0].deregistered
    assert db.do(touch_runners, [Touch(runner.runner_id)]) == [RunnerNotRegistered(runner.runner_id)]
    assert db.do(list_runners) == []
    assert counts(db) == {}
    accepted(db, run, "completed")
    assert db.run(run.run_id).status == "completed"


def test_what_a_runner_sent_away_still_holds_after_its_time_is_lost(db: DbVerbs) -> None:
    """It had three beats to report."""
    runner = db.runner()
    run = running(db, runner)
    leave(db, runner, itself=False)
    db.rows("UPDATE runners SET leave_told_at = now() - interval '170 seconds'")
    assert counts(db) == {}
    db.rows("UPDATE runners SET leave_told_at = now() - interval '181 seconds'")
    assert counts(db) == {"runners gone": 1, "runs taken": 1}
    assert db.run(run.run_id).status == "failed"
    (late,) = say(db, report(run, "completed"))
    assert isinstance(late, RunnerNotRegistered)


def test_a_lost_runner_that_was_to_leave_is_gone(db: DbVerbs) -> None:
    """Nobody waits for it to be told."""
    runner = db.runner()
    leave(db, runner, itself=False)
    fall_silent(db, runner, LOST)
    assert counts(db) == {"runners lost": 1, "runners gone": 1}
    assert db.do(list_runners) == []


def beat(db: DbVerbs, runner: Runner, *run_ids: str) -> None:
    """A heartbeat that names what the runner holds, some time after the last one."""
    pass_time(db, "runners", "counted_beat_at", 10)
    assert db.do(touch_runners, [Touch(runner.runner_id, run_ids)]) == [Heard()]


def test_a_run_that_two_beats_do_not_name_is_lost(db: DbVerbs) -> None:
    """The runner lives, but does not have it: its end report was lost, or it never began."""
    runner = db.runner()
    kept, gone = running(db, runner), running(db, runner, max_attempts=2)
    pass_time(db, "runs", "started_at", 61)
    beat(db, runner, kept.run_id)
    assert counts(db) == {}
    beat(db, runner, kept.run_id)
    assert counts(db) == {"runs not held": 1}
    assert (db.run(kept.run_id).status, db.run(gone.run_id).status) == ("running", "pending")


def test_a_run_named_in_between_is_not_lost(db: DbVerbs) -> None:
    """Two beats in a row, not two in all."""
    runner = db.runner()
    run = running(db, runner)
    pass_time(db, "runs", "started_at", 61)
    for named in ([], [run.run_id], [], [run.run_id]):
        beat(db, runner, *named)
    assert counts(db) == {}


def test_a_run_that_started_lately_is_not_missed_in_a_beat(db: DbVerbs) -> None:
    """The list may be older than the start."""
    runner = db.runner()
    run = running(db, runner)
    pass_time(db, "runs", "started_at", 50)
    beat(db, runner)
    beat(db, runner)
    assert counts(db) == {}
    assert db.run(run.run_id).unheld_beats == 0


def test_one_beat_that_is_delivered_twice_counts_once(db: DbVerbs) -> None:
    """A batch whose answer was lost is repeated; so is a beat that was held while Postgres was away."""
    runner = db.runner()
    run = running(db, runner)
    pass_time(db, "runs", "started_at", 61)
    for _ in range(3):
        db.do(touch_runners, [Touch(runner.runner_id, ()), Touch(runner.runner_id, ())])
    assert db.run(run.run_id).unheld_beats == 1
    assert counts(db) == {}


def test_a_beat_that_names_nothing_about_runs_accuses_none(db: DbVerbs) -> None:
    """Deployed runners never say what they hold."""
    runner = db.runner()
    run = running(db, runner)
    pass_time(db, "runs", "started_at", 3600)
    for _ in range(3):
        db.do(touch_runners, [Touch(runner.runner_id)])
    assert db.run(run.run_id).unheld_beats == 0
    assert not db.one("SELECT sends_holding FROM runners")


def through_a_gap(db: DbVerbs, runner: Runner, *, length: float = 60, ago: float = 901, **values: int) -> str:
    """A run that was running when we were away for so long, that long ago, and gave no sign since."""
    run = running(db, runner, **values)
    orphan(db, length=length, ago=ago)
    return run.run_id


def orphan(db: DbVerbs, *, length: float = 60, ago: float = 901) -> None:
    """Let all that has happened so far have happened before a gap of this length, that long ago."""
    add_gap(db, "expiry", ago + length, ago)
    pass_time(db, "runs", "started_at", ago + length + 100)
    pass_time(db, "sessions", "last_sign_at", ago + length + 100)


def test_a_silent_run_that_lived_through_a_long_gap_of_ours_is_taken_after_a_while(db: DbVerbs) -> None:
    """A deployed runner sends each report once: its end may have been reported while nobody heard it."""
    run_id = through_a_gap(db, db.runner(), max_attempts=2)
    assert counts(db) == {"runs orphaned": 1}
    assert db.run(run_id).status == "pending"


@pytest.mark.parametrize(
    ("length", "ago"),
    [(20, 901), (60, 800)],
    ids=["a report is held for longer than the gap", "the time is not up"],
)
def test_a_run_is_no_orphan_while_its_report_may_still_come(db: DbVerbs, length: float, ago: float) -> None:
    """Reports are held and repeated for a while."""
    run_id = through_a_gap(db, db.runner(), length=length, ago=ago)
    assert counts(db) == {}
    assert db.run(run_id).status == "running"


def test_a_run_with_a_sign_of_its_session_is_no_orphan(db: DbVerbs) -> None:
    """An event is sign enough; silent work without a gap never is suspect."""
    runner = db.runner()
    run_id = through_a_gap(db, runner)
    session_id = db.run(run_id).session_id
    event = NewEvent(session_id, ADMIN, "message", '{"data":{"event_type":"message"}}')
    db.do(append_events, [event])
    assert counts(db) == {}


@pytest.mark.parametrize("token", [OWN, None])
def test_a_runner_that_asks_whether_the_run_is_still_its_own_has_no_orphan(db: DbVerbs, token: str | None) -> None:
    """A repeated `started` changes nothing, but it is a sign."""
    run = running(db)
    orphan(db)
    (answer,) = say(db, report(run, "started", token=token))
    assert isinstance(answer, Reported)
    assert counts(db) == {}


def test_what_clients_do_to_a_session_is_no_sign_of_its_process(db: DbVerbs) -> None:
    """Somebody who waits in vain submits another turn: that must not keep the dead one for ever."""
    run = running(db)
    orphan(db)
    waiting = db.resume(run.session_id)
    assert counts(db) == {"runs orphaned": 1}
    assert db.run(run.run_id).status == "failed"
    assert db.run(waiting.run_id).ready


def test_a_runner_that_says_what_it_holds_has_no_orphans(db: DbVerbs) -> None:
    """Its beats tell."""
    runner = db.runner()
    run_id = through_a_gap(db, runner)
    db.do(touch_runners, [Touch(runner.runner_id, (run_id,))])
    assert counts(db) == {}


def test_orphans_are_left_alone_where_the_rule_is_switched_off(db: DbVerbs) -> None:
    """orphan_after 0."""
    run_id = through_a_gap(db, db.runner())
    assert counts(db, Limits(orphan_after=0)) == {}
    assert db.run(run_id).status == "running"


def test_a_run_in_stop_is_taken_with_its_lost_runner_though_its_time_is_up_too(db: DbVerbs) -> None:
    """Two reasons in one pass end it once."""
    runner = db.runner()
    run = running(db, runner)
    stop(db, run.session_id)
    due(db, run.run_id, "run_deadline_at")
    fall_silent(db, runner, LOST)
    assert counts(db) == {"runners lost": 1, "runs taken": 1}
    assert db.run(run.run_id).status == "stopped"
    assert db.told_kinds(run.session_id).count("run_failed") == 0
    assert db.run(run.run_id).status == Outcome.STOPPED


def test_a_lost_claim_leaves_the_process_of_another_runner_alive(db: DbVerbs) -> None:
    """A session idle at one runner, its next turn claimed by another that is lost: the first one is still told to stop."""
    home, other = db.runner(), db.runner()
    run = idle(db, home)
    db.resume(run.session_id)
    db.claim(other)
    fall_silent(db, other, LOST)
    tick(db)

    assert db.session(run.session_id).runner_id == home.runner_id
    assert stop(db, run.session_id).status == "stopping"
