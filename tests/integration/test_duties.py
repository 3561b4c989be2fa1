"""Who does a duty: one of any number of contenders, and only when it is due."""

from models.expiry.duties import duty_ages, duty_due, record_instance_heartbeat
from tests.support.clocks import pass_time
from tests.support.contenders import crowd, steppers
from tests.support.db_verbs import DbVerbs


def test_a_duty_that_never_ran_is_due_once(db: DbVerbs) -> None:
    """And then not before its time."""
    assert db.do(duty_due, "expire", 1) is True
    assert db.do(duty_due, "expire", 1) is False
    assert db.do(duty_due, "upkeep", 1) is True


def test_a_duty_is_due_again_after_its_time(db: DbVerbs) -> None:
    """By the database's clock."""
    db.do(duty_due, "expire", 10)
    pass_time(db, "duties", "last_run", 9)
    assert db.do(duty_due, "expire", 10) is False
    pass_time(db, "duties", "last_run", 2)
    assert db.do(duty_due, "expire", 10) is True


def test_of_many_contenders_one_does_the_duty(db: DbVerbs) -> None:
    """And nobody waits for it."""
    for _ in range(3):
        assert sum(crowd(16, lambda _: db.do(duty_due, "expire", 60))) == 1
        pass_time(db, "duties", "last_run", 61)


def test_a_duty_that_somebody_is_at_is_nobody_elses(db: DbVerbs) -> None:
    """Until that transaction ends; if it fails the duty is due as before."""
    with steppers(db.engine, 2) as (one, other):
        assert one.do(duty_due, "expire", 1).result() is True
        assert other.do(duty_due, "expire", 1).result() is False
        other.commit()
        one.rollback()
        assert other.do(duty_due, "expire", 1).result() is True


def test_the_age_of_a_duty_is_known(db: DbVerbs) -> None:
    """For readiness: whether the engine room is at work."""
    assert db.do(duty_ages) == {}
    db.do(duty_due, "expire", 1)
    pass_time(db, "duties", "last_run", 40)
    assert 40 <= db.do(duty_ages)["expire"] < 60


def test_web_processes_sign_at_the_same_time_without_waiting_for_each_other(db: DbVerbs) -> None:
    """A frozen one must not make the others look dead."""
    db.do(record_instance_heartbeat, "web-1")
    with steppers(db.engine, 2) as (one, other):
        one.do(record_instance_heartbeat, "web-1").result()
        assert other.do(record_instance_heartbeat, "web-2").done()
        other.commit()
    assert db.count("instances") == 2
