"""Scenarios of runs that no live registration satisfies, for tests and mutations."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Connection

from models.core.callers import ADMIN
from models.expiry import match_deadlines
from models.runners.heartbeat import Touch, touch_runners
from models.runners.leave import LeaveRunner, deregister_runners
from models.runners.register import Registration, register_runners
from models.state.locks import LockedRows
from models.state.try_locks import try_lock_runs
from tests.support.clocks import counts, fall_silent, tick
from tests.support.db_verbs import DbVerbs
from tests.support.matching import no_match_due
from tests.support.reports import running

Scenario = Callable[[DbVerbs], None]
OFFER = partial(Registration, "host", "/project", "profile", executor_type="autonomous")


def backlog_of_a_busy_runner(db: DbVerbs) -> None:
    """Keep runs pending that wait for a busy runner longer than their timeout."""
    running(db, db.runner(capacity=1))
    waiting = [db.start().run_id for _ in range(3)]
    tick(db)
    for run_id in waiting:
        no_match_due(db, run_id)
    tick(db)
    assert [db.run(run_id).status for run_id in waiting] == ["pending"] * 3, "failed behind a busy runner"


def runner_that_registers_at_the_last_moment(db: DbVerbs) -> None:
    """Register or revive a runner before the sweep has locked the runs: they stay pending."""
    for way in ("registers", "comes back"):
        lost = db.runner()
        if way == "comes back":
            fall_silent(db, lost, 999)
            tick(db)
        else:
            db.do(deregister_runners, [LeaveRunner(lost.runner_id, self_initiated=True, caller=ADMIN)])
        run = db.start()
        tick(db)
        no_match_due(db, run.run_id)
        with ThreadPoolExecutor(1) as worker, _paused_at_the_locks() as (visible, go_on):
            swept = worker.submit(tick, db)
            assert visible.wait(10), "the sweep found nothing due"
            if way == "registers":
                db.do(register_runners, [OFFER()])
            else:
                db.do(touch_runners, [Touch(lost.runner_id)])
            go_on.set()
            swept.result()
        assert db.run(run.run_id).status == "pending", f"failed though a runner {way}"
        (taken,) = db.claim(lost) if way == "comes back" else [run]
        assert taken.run_id == run.run_id
        db.rows("UPDATE runners SET left_at = now()")
        db.rows("DELETE FROM runners WHERE hostname = 'host'")
        db.rows("UPDATE runs SET status = 'stopped', ready = false, completed_at = now()")


@contextmanager
def _paused_at_the_locks() -> Iterator[tuple[Event, Event]]:
    """Pause the sweep where its runs are locked and registrations are not read again yet."""
    visible, go_on = Event(), Event()

    def hold(conn: Connection, *what: Any) -> LockedRows:
        held = try_lock_runs(conn, *what)
        visible.set()
        assert go_on.wait(20)
        return held

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(match_deadlines, "try_lock_runs", hold)
        yield visible, go_on


def last_matching_runner_is_lost(db: DbVerbs) -> None:
    """Fail a run its timeout after the loss of its last matching runner, and not before."""
    runner = db.runner()
    run = db.start()
    tick(db)
    no_match_due(db, run.run_id)
    fall_silent(db, runner, 999)
    tick(db)
    assert db.run(run.run_id).status == "pending", "failed at the moment of the loss"
    no_match_due(db, run.run_id)
    assert counts(db) == {"unmatched": 1}, "waits for ever"


def excluded_runner_is_the_only_one(db: DbVerbs) -> None:
    """Fail a run whose only matching registration may not have it again."""
    runner = db.runner()
    run = db.start()
    db.rows("UPDATE runs SET not_for = ARRAY[CAST(:n AS bigint)]", n=runner.registration)
    tick(db)
    no_match_due(db, run.run_id)
    assert counts(db) == {"unmatched": 1}, "waits for ever"
