"""Who does a duty: one of any number of contenders, and only when it is due."""

from models.expiry.duties import duty_ages, duty_due, sign_instance
from tests.support.clocks import pass_time
from tests.support.contenders import crowd, steppers
from tests.support.truth import Truth


def test_a_duty_that_never_ran_is_due_once(truth: Truth) -> None:
    """And then not before its time."""
    assert truth.do(duty_due, "expire", 1) is True
    assert truth.do(duty_due, "expire", 1) is False
    assert truth.do(duty_due, "upkeep", 1) is True


def test_a_duty_is_due_again_after_its_time(truth: Truth) -> None:
    """By the database's clock."""
    truth.do(duty_due, "expire", 10)
    pass_time(truth, "duties", "last_run", 9)
    assert truth.do(duty_due, "expire", 10) is False
    pass_time(truth, "duties", "last_run", 2)
    assert truth.do(duty_due, "expire", 10) is True


def test_of_many_contenders_one_does_the_duty(truth: Truth) -> None:
    """And nobody waits for it."""
    for _ in range(3):
        assert sum(crowd(16, lambda _: truth.do(duty_due, "expire", 60))) == 1
        pass_time(truth, "duties", "last_run", 61)


def test_a_duty_that_somebody_is_at_is_nobody_elses(truth: Truth) -> None:
    """Until that transaction ends; if it fails the duty is due as before."""
    with steppers(truth.engine, 2) as (one, other):
        assert one.do(duty_due, "expire", 1).result() is True
        assert other.do(duty_due, "expire", 1).result() is False
        other.commit()
        one.rollback()
        assert other.do(duty_due, "expire", 1).result() is True


def test_the_age_of_a_duty_is_known(truth: Truth) -> None:
    """For readiness: whether the engine room is at work."""
    assert truth.do(duty_ages) == {}
    truth.do(duty_due, "expire", 1)
    pass_time(truth, "duties", "last_run", 40)
    assert 40 <= truth.do(duty_ages)["expire"] < 60


def test_web_processes_sign_at_the_same_time_without_waiting_for_each_other(truth: Truth) -> None:
    """A frozen one must not make the others look dead."""
    truth.do(sign_instance, "web-1")
    with steppers(truth.engine, 2) as (one, other):
        one.do(sign_instance, "web-1").result()
        assert other.do(sign_instance, "web-2").done()
        other.commit()
    assert truth.count("instances") == 2
