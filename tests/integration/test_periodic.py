"""Periodic duties: done by one of any number of contenders, and only when due."""

from models.expiry.duties import duty_ages, duty_due, record_instance_heartbeat
from tests.support.clocks import pass_time
from tests.support.contenders import run_in_threads, steppers
from tests.support.db_verbs import DbVerbs


def test_duty_that_never_ran_is_due_once(db: DbVerbs) -> None:
    assert db.do(duty_due, "expire", 1) is True
    assert db.do(duty_due, "expire", 1) is False
    assert db.do(duty_due, "upkeep", 1) is True


def test_duty_is_due_again_after_its_interval(db: DbVerbs) -> None:
    db.do(duty_due, "expire", 10)
    pass_time(db, "duties", "last_run", 9)
    assert db.do(duty_due, "expire", 10) is False
    pass_time(db, "duties", "last_run", 2)
    assert db.do(duty_due, "expire", 10) is True


def test_one_of_many_contenders_does_duty(db: DbVerbs) -> None:
    """Let no contender wait for it."""
    for _ in range(3):
        assert sum(run_in_threads(16, lambda _: db.do(duty_due, "expire", 60))) == 1
        pass_time(db, "duties", "last_run", 61)


def test_duty_in_progress_is_refused_to_others(db: DbVerbs) -> None:
    """Hold it until that transaction ends; if it fails the duty is due as before."""
    with steppers(db.engine, 2) as (first, second):
        assert first.do(duty_due, "expire", 1).result() is True
        assert second.do(duty_due, "expire", 1).result() is False
        second.commit()
        first.rollback()
        assert second.do(duty_due, "expire", 1).result() is True


def test_age_of_duty_is_known(db: DbVerbs) -> None:
    """Report it for readiness: do workers run?"""
    assert db.do(duty_ages) == {}
    db.do(duty_due, "expire", 1)
    pass_time(db, "duties", "last_run", 40)
    assert 40 <= db.do(duty_ages)["expire"] < 60


def test_concurrent_instance_heartbeats_do_not_wait_for_each_other(db: DbVerbs) -> None:
    """Freeze one: the others must not pass for dead."""
    db.do(record_instance_heartbeat, "web-1")
    with steppers(db.engine, 2) as (first, second):
        first.do(record_instance_heartbeat, "web-1").result()
        assert second.do(record_instance_heartbeat, "web-2").done()
        second.commit()
    assert db.count("instances") == 2
