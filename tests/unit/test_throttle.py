"""Check the throttle's waiting times, with a given clock."""

import pytest

from app.auth.throttle import LONGEST_TURN, Throttle
from app.lifecycle.drain import Drain


@pytest.fixture
def throttle() -> Throttle:
    return Throttle(Drain(0), 4)


def test_burst_of_one_second_passes_and_the_rest_is_spaced(throttle: Throttle) -> None:
    """A page that asks for several things is no flood."""
    assert [throttle.delay("ann", 100.0) for _ in range(6)] == [-0.75, -0.5, -0.25, 0.0, 0.25, 0.5]


def test_wait_is_one_second_at_most(throttle: Throttle) -> None:
    """Bound the debt too: a caller that stops is free soon."""
    assert max(throttle.delay("ann", 100.0) for _ in range(1000)) == LONGEST_TURN
    assert throttle.delay("ann", 102.0) < 0


def test_caller_within_the_rate_never_waits(throttle: Throttle) -> None:
    assert all(throttle.delay("ann", 100.0 + number / 4) <= 0 for number in range(100))


def test_callers_do_not_wait_for_each_other(throttle: Throttle) -> None:
    for _ in range(100):
        throttle.delay("ann", 100.0)
    assert throttle.delay("bob", 100.0) < 0


def test_zero_rate_disables_the_throttle() -> None:
    throttle = Throttle(Drain(0), 0)
    assert all(throttle.delay("ann", 100.0) <= 0 for _ in range(100))
