"""Expiry of lost, gone and replaced runners on a real database: runs are taken by state, and the feed shows it."""

import pytest

from models.core.callers import ADMIN
from models.core.errors import RunnerNotRegistered
from models.core.limits import Limits
from models.core.statuses import Outcome
from models.feed.append import NewEvent, append_events
from models.runners.heartbeat import Touch, Touched, touch_runners
from models.runners.leave import LeaveRunner, Left, deregister_runners
from models.runners.listing import list_runners
from models.runs.report import Reported
from tests.support.clocks import add_outage, counts, due, fall_silent, pass_time, tick
from tests.support.db_verbs import DbVerbs, Runner, poll_request
from tests.support.reports import OWN, accepted, claimed, idle, report, running, say, stop

LOST = 181  # three times the interval told to runners without an instance id


def test_runner_is_lost_after_three_times_its_told_interval(db: DbVerbs) -> None:
    """Wait longer for deployed runners, which send a heartbeat every 60 s whatever interval they are told."""
    runner = db.runner()
    run = running(db, runner)
    fall_silent(db, runner, 170)
    assert counts(db) == {}
    fall_silent(db, runner, LOST)
    assert counts(db) == {"runners lost": 1, "runs taken": 1}
    assert db.run(run.run_id).status == "failed"


def test_runner_with_short_interval_is_lost_after_lost_after(db: DbVerbs) -> None:
    """Wait at least 60 s, however short the told interval."""
    runner = db.runner(told_interval=10)
    running(db, runner)
    fall_silent(db, runner, 55)
    assert counts(db) == {}
    fall_silent(db, runner, 61)
    assert counts(db)["runners lost"] == 1


@pytest.mark.parametrize(("attempts", "status"), [(1, "failed"), (2, "pending")])
def test_running_run_of_lost_runner_is_requeued_or_fails(db: DbVerbs, attempts: int, status: str) -> None:
    """Use the documented words, and update the session."""
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


def test_lost_runner_releases_claims_and_ends_stops(db: DbVerbs) -> None:
    """Count no attempt for a claim; a stopping run is stopped even with attempts left."""
    runner = db.runner()
    waiting, stopping = claimed(db, runner), running(db, runner, max_attempts=5)
    stop(db, stopping.session_id)
    fall_silent(db, runner, LOST)
    assert counts(db) == {"runners lost": 1, "runs taken": 2}
    assert db.run(waiting.run_id).status == "pending"
    assert db.run(stopping.run_id).status == "stopped"
    assert db.count("stop_commands") == 0


def test_idle_sessions_of_lost_runner_are_finished_or_stopped(db: DbVerbs) -> None:
    """Finish them with their process; close an open stop as stopped."""
    runner = db.runner()
    calm, stopping = idle(db, runner), idle(db, runner)
    stop(db, stopping.session_id)
    fall_silent(db, runner, LOST)
    counts(db)
    assert (db.session(calm.session_id).status, db.session(calm.session_id).runner_id) == ("finished", None)
    assert db.session(stopping.session_id).status == "stopped"
    assert db.count("stop_commands") == 0


def test_lost_runner_is_online_again_with_next_request_without_its_runs(db: DbVerbs) -> None:
    """Leave runs that were reassigned to their new runner."""
    runner = db.runner()
    run = running(db, runner, max_attempts=2)
    fall_silent(db, runner, LOST)
    counts(db)
    assert db.do(list_runners)[0].lost
    assert db.do(touch_runners, [Touch(runner.runner_id)]) == [Touched()]
    info = db.do(list_runners)[0]
    assert (info.status, info.lost, info.runs_in_hand) == ("online", False, 0)
    assert counts(db) == {}
    assert db.run(run.run_id).status == "pending"


def test_lost_runner_that_polls_keeps_new_runs(db: DbVerbs) -> None:
    """Set it online before it claims: the next pass takes nothing from it."""
    runner = db.runner()
    fall_silent(db, runner, LOST)
    assert counts(db) == {"runners lost": 1}
    run = claimed(db, runner)
    assert counts(db) == {}
    assert db.run(run.run_id).status == "claimed"


def test_nothing_is_dispatched_to_lost_runner(db: DbVerbs) -> None:
    """Skip its parked poll until its next request makes it online."""
    runner = db.runner()
    poll = db.park(runner)
    fall_silent(db, runner, LOST)
    assert counts(db) == {"runners lost": 1}
    run = db.start()
    assert db.dispatch() == {}
    assert [claimed.run_id for claimed in db.recheck(poll)[0].runs] == [run.run_id]
    assert counts(db) == {}


def test_lost_runner_cannot_finish_reassigned_run(db: DbVerbs) -> None:
    """Refuse its token, which is no longer the run's (promise "One owner")."""
    lost, other = db.runner(), db.runner()
    run = running(db, lost, max_attempts=2)
    fall_silent(db, lost, LOST)
    counts(db)
    (again,) = db.claim(other)
    assert again.run_id == run.run_id
    (late,) = say(db, report(run, "completed"))
    assert type(late).__name__ == "StaleClaim"
    assert db.run(run.run_id).runner_id == other.runner_id


def test_runs_of_lost_runner_are_taken_after_crash_between_steps(db: DbVerbs) -> None:
    runner = db.runner()
    run = running(db, runner)
    db.rows("UPDATE runners SET lost_at = now()")
    assert counts(db) == {"runs taken": 1}
    assert db.run(run.run_id).status == "failed"


def test_runs_of_unknown_and_replaced_registrations_are_taken(db: DbVerbs) -> None:
    """Take them, since their ends can no longer be reported."""
    gone, replaced = db.runner(), db.runner()
    first, second = running(db, gone), running(db, replaced, max_attempts=2)
    db.rows("DELETE FROM runners WHERE runner_id = :r", r=gone.runner_id)
    db.rows(
        "UPDATE runners SET registration = nextval('runner_registration') WHERE runner_id = :r", r=replaced.runner_id
    )
    assert counts(db) == {"runs taken": 2}
    assert (db.run(first.run_id).status, db.run(second.run_id).status) == ("failed", "pending")
    assert db.run(second.run_id).not_for == [replaced.registration]


def test_session_of_another_live_runner_keeps_its_process(db: DbVerbs) -> None:
    lost, alive = db.runner(), db.runner()
    run = running(db, lost)
    kept, working = idle(db, alive), running(db, alive)
    fall_silent(db, lost, LOST)
    counts(db)
    assert db.run(run.run_id).status == "failed"
    assert db.session(kept.session_id).status == "idle"
    assert db.run(working.run_id).status == "running"


def test_runner_that_leaves_returns_its_work_at_once(db: DbVerbs) -> None:
    """Requeue claimed runs, treat running ones as lost, stop stopping ones, finish idle sessions."""
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


def test_deregistered_runner_is_told_by_its_next_poll(db: DbVerbs) -> None:
    """Serve it as before until then; afterwards it is not registered, but its reports count for a while."""
    runner = db.runner()
    run = running(db, runner)
    assert leave(db, runner, itself=False) == Left(runner.runner_id, "external")
    assert db.do(touch_runners, [Touch(runner.runner_id)]) == [Touched()]
    assert counts(db) == {}
    assert db.answer(poll_request(runner))[0].deregistered
    assert db.do(touch_runners, [Touch(runner.runner_id)]) == [RunnerNotRegistered(runner.runner_id)]
    assert db.do(list_runners) == []
    assert counts(db) == {}
    accepted(db, run, "completed")
    assert db.run(run.run_id).status == "completed"


def test_runs_held_by_deregistered_runner_are_lost_after_its_time(db: DbVerbs) -> None:
    """Allow three heartbeat intervals to report."""
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


def test_lost_runner_to_be_deregistered_is_gone_at_once(db: DbVerbs) -> None:
    runner = db.runner()
    leave(db, runner, itself=False)
    fall_silent(db, runner, LOST)
    assert counts(db) == {"runners lost": 1, "runners gone": 1}
    assert db.do(list_runners) == []


def beat(db: DbVerbs, runner: Runner, *run_ids: str) -> None:
    """Send a heartbeat with the runs that the runner holds, some time after the last one."""
    pass_time(db, "runners", "counted_beat_at", 10)
    assert db.do(touch_runners, [Touch(runner.runner_id, run_ids)]) == [Touched()]


def test_run_missing_in_two_heartbeats_is_lost(db: DbVerbs) -> None:
    """Take it from a live runner that does not have it: its end report was lost, or it never began."""
    runner = db.runner()
    kept, gone = running(db, runner), running(db, runner, max_attempts=2)
    pass_time(db, "runs", "started_at", 61)
    beat(db, runner, kept.run_id)
    assert counts(db) == {}
    beat(db, runner, kept.run_id)
    assert counts(db) == {"runs not held": 1}
    assert (db.run(kept.run_id).status, db.run(gone.run_id).status) == ("running", "pending")


def test_run_named_between_two_misses_is_not_lost(db: DbVerbs) -> None:
    runner = db.runner()
    run = running(db, runner)
    pass_time(db, "runs", "started_at", 61)
    for named in ([], [run.run_id], [], [run.run_id]):
        beat(db, runner, *named)
    assert counts(db) == {}


def test_run_started_recently_is_not_missed_in_heartbeat(db: DbVerbs) -> None:
    """Ignore it, since the list may be older than the start."""
    runner = db.runner()
    run = running(db, runner)
    pass_time(db, "runs", "started_at", 50)
    beat(db, runner)
    beat(db, runner)
    assert counts(db) == {}
    assert db.run(run.run_id).unheld_beats == 0


def test_heartbeat_delivered_twice_counts_once(db: DbVerbs) -> None:
    """Repeat a batch whose answer was lost, and a heartbeat held while Postgres was away."""
    runner = db.runner()
    run = running(db, runner)
    pass_time(db, "runs", "started_at", 61)
    for _ in range(3):
        db.do(touch_runners, [Touch(runner.runner_id, ()), Touch(runner.runner_id, ())])
    assert db.run(run.run_id).unheld_beats == 1
    assert counts(db) == {}


def test_heartbeat_without_holding_takes_no_run(db: DbVerbs) -> None:
    """Send what deployed runners send: they never name runs."""
    runner = db.runner()
    run = running(db, runner)
    pass_time(db, "runs", "started_at", 3600)
    for _ in range(3):
        db.do(touch_runners, [Touch(runner.runner_id)])
    assert db.run(run.run_id).unheld_beats == 0
    assert not db.one("SELECT sends_holding FROM runners")


def run_through_outage(db: DbVerbs, runner: Runner, *, length: float = 60, ago: float = 901, **values: int) -> str:
    """Return a run that was running through an outage of this length, this long ago, without a sign of life since."""
    run = running(db, runner, **values)
    age_past_outage(db, length=length, ago=ago)
    return run.run_id


def age_past_outage(db: DbVerbs, *, length: float = 60, ago: float = 901) -> None:
    """Age all that has happened so far to before an outage of this length, this long ago."""
    add_outage(db, "expiry", ago + length, ago)
    pass_time(db, "runs", "started_at", ago + length + 100)
    pass_time(db, "sessions", "last_sign_at", ago + length + 100)


def test_silent_run_is_taken_after_long_outage(db: DbVerbs) -> None:
    """Take it after a while: deployed runners send each report once, perhaps during the outage."""
    run_id = run_through_outage(db, db.runner(), max_attempts=2)
    assert counts(db) == {"runs orphaned": 1}
    assert db.run(run_id).status == "pending"


@pytest.mark.parametrize(
    ("length", "ago"),
    [(20, 901), (60, 800)],
    ids=["a report is held for longer than the outage", "the time is not up"],
)
def test_run_is_no_orphan_while_its_report_may_still_come(db: DbVerbs, length: float, ago: float) -> None:
    """Wait as long as reports are held and repeated."""
    run_id = run_through_outage(db, db.runner(), length=length, ago=ago)
    assert counts(db) == {}
    assert db.run(run_id).status == "running"


def test_run_with_sign_of_its_session_is_no_orphan(db: DbVerbs) -> None:
    """Count one event; without an outage silent work is never suspect."""
    runner = db.runner()
    run_id = run_through_outage(db, runner)
    session_id = db.run(run_id).session_id
    event = NewEvent(session_id, ADMIN, "message", '{"data":{"event_type":"message"}}')
    db.do(append_events, [event])
    assert counts(db) == {}


@pytest.mark.parametrize("token", [OWN, None])
def test_repeated_start_report_prevents_orphan(db: DbVerbs, token: str | None) -> None:
    """Count it as a sign although it changes nothing."""
    run = running(db)
    age_past_outage(db)
    (answer,) = say(db, report(run, "started", token=token))
    assert isinstance(answer, Reported)
    assert counts(db) == {}


def test_client_activity_is_no_sign_of_process(db: DbVerbs) -> None:
    """Submit another turn: waiting clients must not keep a dead process forever."""
    run = running(db)
    age_past_outage(db)
    waiting = db.resume(run.session_id)
    assert counts(db) == {"runs orphaned": 1}
    assert db.run(run.run_id).status == "failed"
    assert db.run(waiting.run_id).ready


def test_runner_that_sends_holding_has_no_orphans(db: DbVerbs) -> None:
    runner = db.runner()
    run_id = run_through_outage(db, runner)
    db.do(touch_runners, [Touch(runner.runner_id, (run_id,))])
    assert counts(db) == {}


def test_orphans_are_left_alone_with_orphan_after_0(db: DbVerbs) -> None:
    run_id = run_through_outage(db, db.runner())
    assert counts(db, Limits(orphan_after=0)) == {}
    assert db.run(run_id).status == "running"


def test_overdue_stopping_run_of_lost_runner_ends_once(db: DbVerbs) -> None:
    """Let both reasons come due in one pass."""
    runner = db.runner()
    run = running(db, runner)
    stop(db, run.session_id)
    due(db, run.run_id, "run_deadline_at")
    fall_silent(db, runner, LOST)
    assert counts(db) == {"runners lost": 1, "runs taken": 1}
    assert db.run(run.run_id).status == "stopped"
    assert db.told_kinds(run.session_id).count("run_failed") == 0
    assert db.run(run.run_id).status == Outcome.STOPPED


def test_lost_claim_leaves_process_of_another_runner_alive(db: DbVerbs) -> None:
    """Lose the runner that claimed the next turn of a session idle at another one. That one is still told to stop."""
    home, other = db.runner(), db.runner()
    run = idle(db, home)
    db.resume(run.session_id)
    db.claim(other)
    fall_silent(db, other, LOST)
    tick(db)

    assert db.session(run.session_id).runner_id == home.runner_id
    assert stop(db, run.session_id).status == "stopping"
