"""Outages: silence that the coordinator caused is never held against a runner; each kind, on a real database."""

import pytest

from models.core.errors import RunnerNotRegistered
from models.core.limits import DEFAULT_LIMITS, Limits
from models.expiry.duties import record_instance_heartbeat
from models.expiry.outages import EXPIRY_CLOCK, WEB_CLOCK
from models.runners.heartbeat import Touch, Touched, touch_runners
from models.runners.listing import list_runners
from models.runners.register import Registered, register_runners
from models.runners.registration import Registration
from runtime.settings import Settings
from tests.support.clocks import add_outage, counts, due, fall_silent, pass_time
from tests.support.db_verbs import DbVerbs, poll_request
from tests.support.reports import claimed, running, stop


def let_clock_pass(db: DbVerbs, clock: str, seconds: float) -> None:
    pass_time(db, "duties", "last_run", seconds, "duty = :d", d=clock)


def outage_kinds(db: DbVerbs) -> list[str]:
    return [row.kind for row in db.rows("SELECT kind FROM gaps ORDER BY gap_id")]


def test_outage_of_expiry_restarts_windows_of_runners(db: DbVerbs) -> None:
    """Lose Postgres or all workers: a runner is lost only after its whole window from now."""
    runner = db.runner()
    run = running(db, runner)
    assert counts(db) == {}
    let_clock_pass(db, EXPIRY_CLOCK, 300)
    fall_silent(db, runner, 400)
    assert counts(db) == {}
    assert outage_kinds(db) == ["expiry"]
    pass_time(db, "gaps", "ended_at", 170)
    assert counts(db) == {}
    pass_time(db, "gaps", "ended_at", 11)
    assert counts(db) == {"runners lost": 1, "runs taken": 1}
    assert db.run(run.run_id).status == "failed"


def test_expiry_accepts_float_limits_after_outage(db: DbVerbs) -> None:
    """Mix float limits with integer told intervals: psycopg dumps no array of both.

    Stops of runners of both kinds go on.
    """
    limits = Limits(**Settings(database_url="postgresql://", redis_url="redis://").deadlines())
    quick, slow = db.runner(told_interval=10), db.runner(told_interval=60)
    timed = [running(db, runner, run_timeout_seconds=5) for runner in (quick, slow)]
    for run in timed:
        due(db, run.run_id, "run_deadline_at")
    assert counts(db, limits)
    assert {db.run(run.run_id).status for run in timed} == {"stopping"}
    let_clock_pass(db, EXPIRY_CLOCK, 300)
    for runner in (quick, slow):
        fall_silent(db, runner, 400)
    assert counts(db, limits) == {}
    assert outage_kinds(db) == ["expiry"]


def test_short_pause_of_expiry_is_no_outage(db: DbVerbs) -> None:
    """Allow late ticks."""
    runner = db.runner()
    running(db, runner)
    counts(db)
    let_clock_pass(db, EXPIRY_CLOCK, 14)
    fall_silent(db, runner, 181)
    assert counts(db)["runners lost"] == 1
    assert outage_kinds(db) == []


def test_no_runner_is_lost_while_all_web_processes_are_away(db: DbVerbs) -> None:
    """Keep workers alive: no runner can be heard, however long it takes."""
    db.do(record_instance_heartbeat, "web-1")
    runner = db.runner()
    run, waiting, stopping = running(db, runner), claimed(db), running(db)
    timed, lonely = running(db, run_timeout_seconds=5), db.start()
    stop(db, stopping.session_id)
    let_clock_pass(db, WEB_CLOCK, 4000)
    fall_silent(db, runner, 4000)
    due(db, waiting.run_id, "claim_deadline_at")
    due(db, stopping.run_id, "run_deadline_at")
    due(db, timed.run_id, "run_deadline_at")
    due(db, lonely.run_id, "match_deadline_at")
    assert counts(db) == {}
    statuses = [db.run(item.run_id).status for item in (run, waiting, stopping, timed, lonely)]
    assert statuses == ["running", "claimed", "stopping", "running", "pending"]


def test_first_web_heartbeat_ends_outage_and_restarts_windows(db: DbVerbs) -> None:
    """Write the outage together with the heartbeat, so that no pass judges in between."""
    db.do(record_instance_heartbeat, "web-1")
    runner = db.runner()
    running(db, runner)
    let_clock_pass(db, WEB_CLOCK, 4000)
    fall_silent(db, runner, 4000)
    db.do(record_instance_heartbeat, "web-2")
    assert outage_kinds(db) == ["web"]
    length = db.one("SELECT extract(epoch FROM ended_at - started_at) FROM gaps")
    assert 4000 <= float(length) < 4060
    assert counts(db) == {}
    db.do(record_instance_heartbeat, "web-1")
    assert outage_kinds(db) == ["web"]


def test_one_live_web_process_prevents_outage(db: DbVerbs) -> None:
    """Freeze another replica: the others hear the runners."""
    for _ in range(3):
        db.do(record_instance_heartbeat, "web-1")
        db.do(record_instance_heartbeat, "web-2")
    pass_time(db, "instances", "seen_at", 60, "instance = 'web-2'")
    runner = db.runner()
    running(db, runner)
    fall_silent(db, runner, 181)
    assert counts(db)["runners lost"] == 1
    assert outage_kinds(db) == []


def test_silence_of_all_online_runners_delays_their_loss(db: DbVerbs) -> None:
    """Assume that the way to the coordinator is cut: they get one more window."""
    runners = [db.runner(), db.runner()]
    for runner in runners:
        running(db, runner)
        fall_silent(db, runner, 200)
    assert counts(db) == {}
    for runner in runners:
        fall_silent(db, runner, 361)
    assert counts(db) == {"runners lost": 2, "runs taken": 2}


def test_first_runner_heard_gives_others_their_whole_window(db: DbVerbs) -> None:
    """Expect them to reconnect at about the same time, not at the same moment."""
    first, second = db.runner(), db.runner()
    pass_time(db, "runners", "registered_at", 3600)
    run = running(db, second)
    for runner in (first, second):
        fall_silent(db, runner, 200)
    assert counts(db) == {}
    assert db.do(touch_runners, [Touch(first.runner_id)]) == [Touched()]
    assert counts(db) == {}
    assert outage_kinds(db) == ["runners"]
    assert db.run(run.run_id).status == "running"
    assert {info.status for info in db.do(list_runners)} == {"online"}


def test_silence_of_lone_runner_is_no_outage(db: DbVerbs) -> None:
    """Apply the window: one runner proves nothing."""
    runner = db.runner()
    running(db, runner)
    fall_silent(db, runner, 181)
    assert counts(db)["runners lost"] == 1


def test_new_process_is_refused_during_outage(db: DbVerbs) -> None:
    """Keep the former process, which only seems stale: it must not lose its runs to a new one right after an outage."""
    db.do(record_instance_heartbeat, "web-1")
    offer = Registration("host", "/project", "profile", executor_type="autonomous")
    (first,) = db.do(register_runners, [offer])
    assert isinstance(first, Registered)
    db.rows("UPDATE runners SET last_seen = now() - interval '1 hour'")
    let_clock_pass(db, WEB_CLOCK, 3600)
    newcomer = Registration("host", "/project", "profile", executor_type="autonomous")
    assert not isinstance(db.do(register_runners, [newcomer])[0], Registered)
    db.do(record_instance_heartbeat, "web-1")
    assert not isinstance(db.do(register_runners, [newcomer])[0], Registered)
    pass_time(db, "gaps", "ended_at", 121)
    assert isinstance(db.do(register_runners, [newcomer])[0], Registered)


def test_runner_is_not_forgotten_because_of_outage(db: DbVerbs) -> None:
    """Count 24 h from the end of the outage."""
    db.do(record_instance_heartbeat, "web-1")
    runner = db.runner()
    fall_silent(db, runner, DEFAULT_LIMITS.forget_runner + 100)
    assert db.do(touch_runners, [Touch(runner.runner_id)]) == [RunnerNotRegistered(runner.runner_id)]
    let_clock_pass(db, WEB_CLOCK, DEFAULT_LIMITS.forget_runner + 50)
    assert db.answer(poll_request(runner))[0].parked
    db.do(record_instance_heartbeat, "web-1")
    assert db.do(touch_runners, [Touch(runner.runner_id)]) == [Touched()]


def served_ago(db: DbVerbs, seconds: float) -> float:
    """Return how many seconds ago the coordinator had served this many seconds until now."""
    query = "SELECT extract(epoch FROM clock_timestamp() - served_ago(:s))"
    return float(db.one(query, s=seconds))


def test_time_served_leaves_out_known_outages_once(db: DbVerbs) -> None:
    """Merge outages that several detectors saw; count an outage of all runners, which is a guess, as time served."""
    assert served_ago(db, 100) == pytest.approx(100, abs=1)
    add_outage(db, "expiry", 60, 30)
    add_outage(db, "web", 50, 20)
    add_outage(db, "runners", 15, 5)
    add_outage(db, "expiry", 300, 200)
    assert [served_ago(db, seconds) for seconds in (10, 25, 100, 170)] == pytest.approx([10, 65, 140, 310], abs=1)


def test_time_served_ends_with_last_web_heartbeat(db: DbVerbs) -> None:
    """Leave the outage open."""
    db.do(record_instance_heartbeat, "web-1")
    let_clock_pass(db, WEB_CLOCK, 14)
    assert served_ago(db, 10) == pytest.approx(10, abs=1)
    let_clock_pass(db, WEB_CLOCK, 26)
    assert served_ago(db, 10) == pytest.approx(50, abs=1)
