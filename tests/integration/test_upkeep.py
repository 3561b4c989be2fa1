"""Upkeep on a real database: removes what is no longer needed, and nothing else."""

import pytest

from models.claims.matching import Demands
from models.expiry.cleanup import upkeep
from models.runners.leave import LeaveRunner, deregister_runners
from tests.support.clocks import add_outage, fall_silent, pass_time
from tests.support.contenders import steppers
from tests.support.db_verbs import DbVerbs, start_submission
from tests.support.reports import accepted, claimed, idle, running


def keep_up(db: DbVerbs) -> bool:
    return db.do(upkeep, idempotency_seconds=86_400)


def test_idempotency_keys_are_removed_after_their_time(db: DbVerbs) -> None:
    """Keep their runs."""
    db.start(idempotency_key="old", body_hash="h")
    pass_time(db, "idempotency_keys", "created_at", 86_401)
    db.start(idempotency_key="new", body_hash="h")
    assert keep_up(db) is False
    assert [row.key for row in db.rows("SELECT key FROM idempotency_keys")] == ["new"]
    assert db.count("runs") == 2


def test_full_pass_asks_for_another(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.expiry.cleanup.MOST", 2)
    db.accept(*[start_submission(idempotency_key=str(number), body_hash="h") for number in range(3)])
    pass_time(db, "idempotency_keys", "created_at", 86_401)
    assert [keep_up(db), keep_up(db)] == [True, False]
    assert db.count("idempotency_keys") == 0


def test_heartbeats_outages_and_deletes_are_removed_in_portions(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow for many of each after a long outage."""
    monkeypatch.setattr("models.expiry.cleanup.MOST", 2)
    db.rows("INSERT INTO instances SELECT 'web-' || n, now() - interval '2 hours' FROM generate_series(1, 3) n")
    for _ in range(5):
        add_outage(db, "expiry", 40 * 86_400, 31 * 86_400)
    db.rows(
        "INSERT INTO deleted_sessions SELECT 'r' || n, 's' || n, 0, 0, 0, now() - interval '1 hour' "
        "FROM generate_series(1, 7) n"
    )
    left = []
    while keep_up(db):
        left.append([db.count(table) for table in ("instances", "gaps", "deleted_sessions")])
    assert left == [[1, 3, 5], [0, 1, 3], [0, 0, 1]]
    assert db.count("deleted_sessions") == 0


def test_demand_profiles_without_possible_runs_are_removed(db: DbVerbs) -> None:
    """Keep those used within a day, and those of a run that may be claimed again."""
    waiting = db.start(additional_demands=Demands(tags=("waiting",)))
    delayed = db.start(additional_demands=Demands(tags=("delayed",)), delay_seconds=60)
    active = running(db, db.runner(tags=["active"]), additional_demands=Demands(tags=("active",)))
    ended = running(db, db.runner(tags=["ended"]), additional_demands=Demands(tags=("ended",)))
    accepted(db, ended, "completed")
    pass_time(db, "demand_profiles", "last_used_at", 86_500)
    fresh = db.start(additional_demands=Demands(tags=("fresh",)))
    kept = [db.run(item.run_id).profile_id for item in (waiting, delayed, active, fresh)]
    keep_up(db)
    assert {row.profile_id for row in db.rows("SELECT profile_id FROM demand_profiles")} == set(kept)


def test_removed_profile_is_recreated(db: DbVerbs) -> None:
    """Give it another id; its runs are claimed as before."""
    ended = claimed(db)
    accepted(db, ended, "completed")
    pass_time(db, "demand_profiles", "last_used_at", 86_500)
    keep_up(db)
    assert db.count("demand_profiles") == 0
    assert claimed(db).run_id != ended.run_id


def test_left_and_silent_runners_are_removed_after_a_day_without_work(db: DbVerbs) -> None:
    left, silent, holding, keeping, online = (db.runner() for _ in range(5))
    running(db, holding)
    idle(db, keeping)
    db.do(deregister_runners, [LeaveRunner(left.runner_id, self_initiated=True)])
    for runner in (silent, holding, keeping):
        fall_silent(db, runner, 86_500)
    keep_up(db)
    there = {row.runner_id for row in db.rows("SELECT runner_id FROM runners")}
    assert there == {left.runner_id, holding.runner_id, keeping.runner_id, online.runner_id}
    pass_time(db, "runners", "left_at", 3700)
    keep_up(db)
    assert db.count("runners", "runner_id = :r", r=left.runner_id) == 0


def test_instance_heartbeats_and_outages_are_removed(db: DbVerbs) -> None:
    """Remove them after an hour and after a month."""
    db.rows("INSERT INTO instances VALUES ('old', now() - interval '61 minutes'), ('new', now())")
    add_outage(db, "expiry", 40 * 86_400, 31 * 86_400)
    add_outage(db, "expiry", 8 * 86_400, 7 * 86_400)
    keep_up(db)
    assert [row.instance for row in db.rows("SELECT instance FROM instances")] == ["new"]
    assert db.count("gaps") == 1


def test_upkeep_skips_locked_rows(db: DbVerbs) -> None:
    runner = db.runner()
    fall_silent(db, runner, 86_500)
    with steppers(db.engine, 2) as (first, second):
        first.do(lambda conn: conn.exec_driver_sql("SELECT 1 FROM runners FOR UPDATE").all()).result()
        assert second.do(upkeep).done()
        second.commit()
    assert db.count("runners") == 1
    keep_up(db)
    assert db.count("runners") == 0


def test_upkeep_run_twice_equals_once(db: DbVerbs) -> None:
    db.start()
    assert [keep_up(db), keep_up(db)] == [False, False]
    assert db.count("runs") == 1
