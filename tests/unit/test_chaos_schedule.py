"""The schedule of the chaos suite: the same for the same seed, and nothing is left out."""

from collections import Counter

import pytest

from chaos.schedule import LONGEST_FREEZE, MAKERS, Fault, Kind, schedule


def test_a_seed_gives_the_same_schedule_every_time() -> None:
    """And another seed another one: a run that failed can be had again."""
    assert schedule(7, 600) == schedule(7, 600)
    assert schedule(7, 600) != schedule(8, 600)


@pytest.mark.parametrize("seed", range(20))
def test_faults_come_in_order_and_end_in_time(seed: int) -> None:
    """So that the quiet time after them is quiet."""
    faults = schedule(seed, 120)
    assert faults == sorted(faults, key=lambda fault: fault.at)
    assert all(fault.at + fault.seconds <= 120.1 for fault in faults)
    assert all(fault.seconds <= LONGEST_FREEZE + 2 for fault in faults)
    assert len(faults) >= 10


@pytest.mark.parametrize("seed", range(5))
def test_every_kind_comes_before_one_comes_again(seed: int) -> None:
    """A run of some minutes has tried all of them."""
    faults = schedule(seed, 1800)[: len(MAKERS)]
    assert Counter(fault.kind for fault in faults).keys() == set(Kind)


def test_faults_overlap_now_and_then() -> None:
    """One that begins while another one lasts is what nobody has thought of."""
    faults = schedule(1, 600)
    overlapping = [
        (one, other)
        for place, one in enumerate(faults)
        for other in faults[place + 1 :]
        if other.at < one.at + one.seconds
    ]
    assert len(overlapping) > 10


def test_a_fault_says_what_it_is() -> None:
    """As the log and the list of a schedule show it."""
    fault = Fault(3.25, Kind.SKEW, "web-1", 5, -70)
    assert str(fault) == "   3.2 s  skew the clock web-1 for 5 s by -70 s"
