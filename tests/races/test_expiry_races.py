"""Race expiry against everything else: it waits for no lock, and nothing ends twice."""

import random
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, text

from models.core.callers import ADMIN
from models.expiry.expire import expire
from models.runners.heartbeat import Touch, Touched, touch_runners
from models.runners.leave import LeaveRunner, deregister_runners
from models.runners.register import Registered, register_runners
from models.runners.registration import Registration
from models.runs.report import report_runs
from models.runs.stop import StopSession, stop_sessions
from models.runs.submit import submit_runs
from tests.support.clocks import counts, due, fall_silent, pass_time, tick
from tests.support.contenders import run_in_threads, steppers, with_one_repeat
from tests.support.db_verbs import DbVerbs, Runner, resume_submission, start_submission
from tests.support.matching import no_match_due
from tests.support.reports import claimed, heartbeat, idle, report, running, stop

CROWDS = [2, 8, 32]
LOST = 181


@pytest.mark.parametrize("contenders", CROWDS)
def test_concurrent_passes_expire_everything_once(db: DbVerbs, contenders: int) -> None:
    """Let one worker do the pass when several tick at once; the others skip it."""
    runs = db.accept(*[start_submission() for _ in range(20)])
    for run in runs:
        no_match_due(db, run.run_id)
    results = run_in_threads(contenders, lambda _: tick(db))
    assert sum(result.counts.get("unmatched", 0) for result in results) == 20
    for run in runs:
        assert db.told_kinds(run.session_id).count("run_failed") == 1


def test_expiry_skips_locked_rows_until_the_next_pass(db: DbVerbs) -> None:
    """Hold a run, a session, a stop or a runner in a frozen transaction; all other rows expire."""
    runner, frozen = db.runner(), db.runner()
    runs = [running(db, runner) for _ in range(3)]
    lost, free = running(db, frozen), running(db, db.runner())
    for run in runs:
        stop(db, run.session_id)
        due(db, run.run_id, "run_deadline_at")
    for runner in (frozen, Runner(free.runner_id or "", 0)):
        fall_silent(db, runner, LOST)
    locks = [
        ("SELECT 1 FROM runs WHERE run_id = :id FOR UPDATE", runs[0].run_id),
        ("SELECT 1 FROM sessions WHERE session_id = :id FOR UPDATE", runs[1].session_id),
        ("SELECT 1 FROM stop_commands WHERE session_id = :id FOR UPDATE", runs[2].session_id),
        ("SELECT 1 FROM runners WHERE runner_id = :id FOR UPDATE", frozen.runner_id),
    ]
    with steppers(db.engine, 2) as (one, other):
        for statement, row_id in locks:
            one.do(_lock, statement, row_id).result()
        done = other.do(expire)
        assert done.done(), "it waits for a lock"
        assert done.result().counts == {"runners lost": 1, "runs taken": 1}
        other.commit()
    assert db.run(free.run_id).status == "failed"
    assert {db.run(run.run_id).status for run in runs} == {"stopping"}
    assert counts(db) == {"runners lost": 1, "runs taken": 1, "stops given up": 3}
    assert db.run(lost.run_id).status == "failed"


def test_start_reported_while_second_heartbeat_misses_the_run_counts(db: DbVerbs) -> None:
    """The heartbeat was sent before the answer was read; it skips the run that the report has locked."""
    runner = db.runner()
    run = claimed(db, runner)
    db.park(runner)
    heartbeat(db, runner)
    pass_time(db, "runners", "counted_beat_at", 10)
    with steppers(db.engine, 2) as (one, other):
        one.do(report_runs, [report(run, "started")]).result()
        other.do(touch_runners, [Touch(runner.runner_id, ())]).result()
        other.commit()
        one.commit()
    assert counts(db) == {}
    assert db.run(run.run_id).status == "running"


def test_start_reported_while_its_claim_is_released_is_refused(db: DbVerbs) -> None:
    """Two heartbeats missed the run: its token is stale once the release commits, and the report changes nothing."""
    runner = db.runner()
    run = claimed(db, runner)
    db.park(runner)
    for _ in range(2):
        heartbeat(db, runner)
    with steppers(db.engine, 2) as (one, other):
        assert one.do(expire).result().counts == {"claims released": 1}
        late = other.do(report_runs, [report(run, "started")])
        one.commit()
        (refused,) = late.result()
        other.commit()
    assert type(refused).__name__ == "StaleClaim"
    assert db.run(run.run_id).status == "pending"


def _lock(conn: Connection, statement: str, row_id: str) -> None:
    conn.execute(text(statement), {"id": row_id}).one()


def test_runner_heard_while_its_runs_are_taken_keeps_the_rest(db: DbVerbs) -> None:
    """Check the silence again on the locked row."""
    runner = db.runner()
    run = running(db, runner)
    fall_silent(db, runner, LOST)
    with steppers(db.engine, 2) as (one, other):
        one.do(touch_runners, [Touch(runner.runner_id)]).result()
        assert other.do(expire).result().counts == {}
        other.commit()
        one.commit()
    assert counts(db) == {}
    assert db.run(run.run_id).status == "running"


def test_of_256_heartbeats_with_one_row_locked_255_are_written(db: DbVerbs) -> None:
    """A single frozen row lock must not delay all other heartbeats."""
    runners = [db.runner() for _ in range(256)]
    pass_time(db, "runners", "last_seen", 20)
    with steppers(db.engine, 2) as (one, other):
        one.do(_lock, "SELECT 1 FROM runners WHERE runner_id = :id FOR UPDATE", runners[7].runner_id).result()
        beats = other.do(touch_runners, [Touch(runner.runner_id, ()) for runner in runners])
        assert beats.done(), "it waits for a lock"
        assert beats.result() == [Touched() for _ in runners]
        other.commit()
    assert db.count("runners", "last_seen > now() - interval '10 seconds'") == 255


@pytest.mark.parametrize("contenders", CROWDS)
def test_concurrent_restarts_end_the_former_registration_once(db: DbVerbs, contenders: int) -> None:
    """Send reports of the former process meanwhile, and run expiry."""
    offer = partial(Registration, "host", "/project", "profile", executor_type="autonomous")
    (first,) = db.do(register_runners, [offer()])
    assert isinstance(first, Registered)
    runner = Runner(first.runner_id, 0)
    runs = [running(db, runner, max_attempts=2) for _ in range(4)]
    fall_silent(db, runner, 121)

    def contend(place: int) -> Any:
        if place % 3 == 1:
            return tick(db)
        if place % 3 == 2:
            return with_one_repeat(db.engine, report_runs, [report(run, "completed") for run in runs])
        return with_one_repeat(db.engine, register_runners, [offer()])[0]

    results = run_in_threads(contenders, contend)
    assert sum(isinstance(result, Registered) for result in results) == 1
    assert {db.run(run.run_id).status for run in runs} <= {"completed", "pending"}
    assert counts(db) == {}


def test_mixed_storm_neither_deadlocks_nor_loses_runs(db: DbVerbs) -> None:
    """Submit, claim, report, stop, send heartbeats, leave and lose runners, with expiry running all the time."""
    runners = [db.runner() for _ in range(6)]
    sessions = [idle(db, runners[place % 6]).session_id for place in range(6)]

    def contend(place: int) -> None:
        dice = random.Random(place)
        for _ in range(12):
            _one_of_everything(db, dice, runners, sessions)

    run_in_threads(12, contend)
    db.rows("UPDATE runners SET last_seen = now() - interval '1 hour', lost_at = NULL")
    for _ in range(60):
        tick(db)
        for (run_id,) in db.rows("SELECT run_id FROM runs WHERE status = 'pending' AND ready"):
            no_match_due(db, run_id)
        db.rows("UPDATE duties SET last_run = '-infinity' WHERE duty = 'missed readiness'")
        if db.count("runs", "completed_at IS NULL") == 0:
            break
    left = db.rows("SELECT run_id, status, ready, registration FROM runs WHERE completed_at IS NULL")
    assert left == [], "stuck for ever"
    assert db.count("sessions", "status NOT IN ('finished', 'failed', 'stopped')") == 0
    assert db.count("stop_commands") == 0


def _one_of_everything(db: DbVerbs, dice: random.Random, runners: list[Runner], sessions: list[str]) -> None:
    runner, session_id = dice.choice(runners), dice.choice(sessions)
    match dice.randrange(7):
        case 0:
            submit = partial(submit_runs, max_depth=10)
            with_one_repeat(db.engine, submit, [start_submission(max_attempts=2), resume_submission(session_id)])
        case 1 | 2:
            given = db.claim(runner)
            reports = [report(run, outcome) for run in given for outcome in ("started", "completed")]
            with_one_repeat(db.engine, report_runs, reports[: dice.randrange(3)])
        case 3:
            with_one_repeat(db.engine, stop_sessions, [StopSession(ADMIN, session_id)])
        case 4:
            with_one_repeat(db.engine, touch_runners, [Touch(one.runner_id, ()) for one in runners])
        case 5:
            fall_silent(db, runner, LOST)
            tick(db)
        case _:
            leaving = db.runner()
            db.claim(leaving)
            with_one_repeat(db.engine, deregister_runners, [LeaveRunner(leaving.runner_id, self_initiated=True)])
