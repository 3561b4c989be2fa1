"""Race registrations, losses and submissions against the sweep of runs that no runner satisfies."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Connection

from models.claims.fleet import fleet_of
from models.claims.matching import Demands
from models.core.callers import ADMIN
from models.expiry import match_deadlines
from models.runners.heartbeat import Touch, touch_runners
from models.runners.leave import LeaveRunner, deregister_runners
from models.runners.register import Registered, register_runners
from models.runners.registration import Registration
from models.state.locks import LockedRows
from models.state.try_locks import try_lock_runs
from tests.support.clocks import counts, fall_silent, tick
from tests.support.contenders import run_in_threads
from tests.support.db_verbs import DbVerbs, start_submission
from tests.support.matching import no_match_due, timeout_at

OFFER = partial(Registration, "host", "/project", "profile", executor_type="autonomous")


def test_runner_that_registers_during_sweep_keeps_its_runs_pending(db: DbVerbs) -> None:
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
            assert visible.wait(30), "the sweep found nothing due"
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
        assert go_on.wait(30)
        return held

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(match_deadlines, "try_lock_runs", hold)
        yield visible, go_on


TAGS = ("a", "b", "c")


@pytest.mark.parametrize("contenders", [2, 8, 32])
def test_sweeps_among_registrations_and_departures_agree_with_matchmaker(db: DbVerbs, contenders: int) -> None:
    """After any interleaving, the next pass stores what the matchmaker's own function returns."""

    def contend(place: int) -> Any:
        dice = random.Random(place)
        match place % 4:
            case 0:
                return tick(db)
            case 1:
                tags = tuple(dice.sample(TAGS, dice.randrange(1, 3)))
                return db.accept(start_submission(additional_demands=Demands(tags=tags)))
            case 2:
                item = Registration(f"h{place}", "/p", "x", (dice.choice(TAGS),), executor_type="autonomous")
                (made,) = db.do(register_runners, [item])
                assert isinstance(made, Registered)
                return made
            case _:
                leaver = db.runner(tags=list(TAGS))
                return db.do(deregister_runners, [LeaveRunner(leaver.runner_id, self_initiated=True, caller=ADMIN)])

    run_in_threads(contenders, contend)
    tick(db)
    fleets = db.rows("SELECT * FROM runners WHERE left_at IS NULL AND lost_at IS NULL")
    for profile in db.rows("SELECT * FROM demand_profiles"):
        matched = any(set(profile.tags) <= set(runner.tags) for runner in fleets)
        assert (profile.unmatched_since is None) == matched, (profile, fleets)


def test_each_waiting_run_fails_once_among_many_sweeps(db: DbVerbs) -> None:
    """Two workers make one pass at a time."""
    runs = db.accept(*[start_submission() for _ in range(20)])
    for run in runs:
        no_match_due(db, run.run_id)
    results = run_in_threads(8, lambda _: tick(db))
    assert sum(result.counts.get("unmatched", 0) for result in results) == 20
    assert [timeout_at(db, run.run_id) for run in runs] == [None] * 20
    assert counts(db) == {}
    assert db.do(fleet_of).empty
