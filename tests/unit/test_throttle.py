"""Turns: who waits, and for how long; the clock is given."""

import pytest

from app.auth.throttle import LONGEST_TURN, Throttle
from app.lifecycle.drain import Drain


@pytest.fixture
def turns() -> Throttle:
    return Throttle(Drain(0), 4)


def test_a_second_s_worth_comes_at_once_and_the_rest_one_after_the_other(turns: Throttle) -> None:
    """A page that asks for several things is no flood."""
    assert [turns.delay("ann", 100.0) for _ in range(6)] == [-0.75, -0.5, -0.25, 0.0, 0.25, 0.5]


def test_nobody_waits_longer_than_a_second(turns: Throttle) -> None:
    """Nor is more owed than that: who stops is free soon."""
    assert max(turns.delay("ann", 100.0) for _ in range(1000)) == LONGEST_TURN
    assert turns.delay("ann", 102.0) < 0


def test_who_keeps_to_the_rate_never_waits(turns: Throttle) -> None:
    """Four a second, for ever."""
    assert all(turns.delay("ann", 100.0 + number / 4) <= 0 for number in range(100))


def test_one_does_not_wait_for_another(turns: Throttle) -> None:
    """Each has turns of its own."""
    for _ in range(100):
        turns.delay("ann", 100.0)
    assert turns.delay("bob", 100.0) < 0


def test_at_no_rate_nobody_waits() -> None:
    """The limit is off."""
    turns = Throttle(Drain(0), 0)
    assert all(turns.delay("ann", 100.0) <= 0 for _ in range(100))
