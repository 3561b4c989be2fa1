"""Upkeep on a real database: what nobody needs any more goes, what somebody may need stays."""

import pytest

from models.claims.matching import Demands
from models.expiry.cleanup import upkeep
from models.runners.leave import LeaveRunner, deregister_runners
from tests.support.clocks import add_gap, fall_silent, pass_time
from tests.support.contenders import steppers
from tests.support.reports import accepted, claimed, idle, running
from tests.support.truth import Truth, starting


def keep_up(truth: Truth) -> bool:
    return truth.do(upkeep, idempotency_seconds=86_400)


def test_idempotency_keys_go_after_their_time(truth: Truth) -> None:
    """Their runs stay."""
    truth.start(idempotency_key="old", body_hash="h")
    pass_time(truth, "idempotency_keys", "created_at", 86_401)
    truth.start(idempotency_key="new", body_hash="h")
    assert keep_up(truth) is False
    assert [row.key for row in truth.rows("SELECT key FROM idempotency_keys")] == ["new"]
    assert truth.count("runs") == 2


def test_there_is_more_when_a_pass_was_full(truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded transactions."""
    monkeypatch.setattr("models.expiry.cleanup.MOST", 2)
    truth.accept(*[starting(idempotency_key=str(number), body_hash="h") for number in range(3)])
    pass_time(truth, "idempotency_keys", "created_at", 86_401)
    assert [keep_up(truth), keep_up(truth)] == [True, False]
    assert truth.count("idempotency_keys") == 0


def test_signs_gaps_and_deletes_of_long_ago_go_in_small_portions_too(
    truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a long outage there may be many of each."""
    monkeypatch.setattr("models.expiry.cleanup.MOST", 2)
    truth.rows("INSERT INTO instances SELECT 'web-' || n, now() - interval '2 hours' FROM generate_series(1, 3) n")
    for _ in range(5):
        add_gap(truth, "expiry", 40 * 86_400, 31 * 86_400)
    truth.rows(
        "INSERT INTO deleted_sessions SELECT 'r' || n, 's' || n, 0, 0, 0, now() - interval '1 hour' "
        "FROM generate_series(1, 7) n"
    )
    left = []
    while keep_up(truth):
        left.append([truth.count(table) for table in ("instances", "gaps", "deleted_sessions")])
    assert left == [[1, 3, 5], [0, 1, 3], [0, 0, 1]]
    assert truth.count("deleted_sessions") == 0


def test_demand_profiles_go_when_no_run_may_need_them(truth: Truth) -> None:
    """Used within a day, or by a run that may be claimed again: they stay."""
    waiting = truth.start(additional_demands=Demands(tags=("waiting",)))
    delayed = truth.start(additional_demands=Demands(tags=("delayed",)), delay_seconds=60)
    active = running(truth, truth.runner(tags=["active"]), additional_demands=Demands(tags=("active",)))
    ended = running(truth, truth.runner(tags=["ended"]), additional_demands=Demands(tags=("ended",)))
    accepted(truth, ended, "completed")
    pass_time(truth, "demand_profiles", "last_used_at", 86_500)
    fresh = truth.start(additional_demands=Demands(tags=("fresh",)))
    kept = [truth.run(one.run_id).profile_id for one in (waiting, delayed, active, fresh)]
    keep_up(truth)
    assert {row.profile_id for row in truth.rows("SELECT profile_id FROM demand_profiles")} == set(kept)


def test_a_profile_that_went_is_made_again(truth: Truth) -> None:
    """Under another id, and its runs are claimed as ever."""
    ended = claimed(truth)
    accepted(truth, ended, "completed")
    pass_time(truth, "demand_profiles", "last_used_at", 86_500)
    keep_up(truth)
    assert truth.count("demand_profiles") == 0
    assert claimed(truth).run_id != ended.run_id


def test_runners_go_when_they_left_or_were_silent_for_a_day(truth: Truth) -> None:
    """Not before, and not while they hold anything."""
    left, silent, holding, keeping, online = (truth.runner() for _ in range(5))
    running(truth, holding)
    idle(truth, keeping)
    truth.do(deregister_runners, [LeaveRunner(left.runner_id, self_initiated=True)])
    for runner in (silent, holding, keeping):
        fall_silent(truth, runner, 86_500)
    keep_up(truth)
    there = {row.runner_id for row in truth.rows("SELECT runner_id FROM runners")}
    assert there == {left.runner_id, holding.runner_id, keeping.runner_id, online.runner_id}
    pass_time(truth, "runners", "left_at", 3700)
    keep_up(truth)
    assert truth.count("runners", "runner_id = :r", r=left.runner_id) == 0


def test_signs_of_old_processes_and_old_gaps_go(truth: Truth) -> None:
    """After an hour, after a month."""
    truth.rows("INSERT INTO instances VALUES ('old', now() - interval '61 minutes'), ('new', now())")
    add_gap(truth, "expiry", 40 * 86_400, 31 * 86_400)
    add_gap(truth, "expiry", 8 * 86_400, 7 * 86_400)
    keep_up(truth)
    assert [row.instance for row in truth.rows("SELECT instance FROM instances")] == ["new"]
    assert truth.count("gaps") == 1


def test_upkeep_waits_for_nobody(truth: Truth) -> None:
    """What somebody has locked is left to the next time."""
    runner = truth.runner()
    fall_silent(truth, runner, 86_500)
    with steppers(truth.engine, 2) as (one, other):
        one.do(lambda conn: conn.exec_driver_sql("SELECT 1 FROM runners FOR UPDATE").all()).result()
        assert other.do(upkeep).done()
        other.commit()
    assert truth.count("runners") == 1
    keep_up(truth)
    assert truth.count("runners") == 0


def test_twice_is_as_good_as_once(truth: Truth) -> None:
    """Actors may run twice or never."""
    truth.start()
    assert [keep_up(truth), keep_up(truth)] == [False, False]
    assert truth.count("runs") == 1
