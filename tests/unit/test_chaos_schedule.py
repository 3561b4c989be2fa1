"""Check that the chaos schedule is determined by its seed and leaves no kind of fault out."""

from collections import Counter

import pytest

from chaos.schedule import LONGEST_FREEZE, MAKERS, Fault, Kind, schedule


def test_seed_determines_schedule() -> None:
    assert schedule(7, 600) == schedule(7, 600)
    assert schedule(7, 600) != schedule(8, 600)


@pytest.mark.parametrize("seed", range(20))
def test_faults_are_ordered_and_end_before_quiet_time(seed: int) -> None:
    faults = schedule(seed, 120)
    assert faults == sorted(faults, key=lambda fault: fault.at)
    assert all(fault.at + fault.seconds <= 120.1 for fault in faults)
    assert all(fault.seconds <= LONGEST_FREEZE + 2 for fault in faults)
    assert len(faults) >= 10


@pytest.mark.parametrize("seed", range(5))
def test_every_kind_occurs_before_any_repeats(seed: int) -> None:
    faults = schedule(seed, 1800)[: len(MAKERS)]
    assert Counter(fault.kind for fault in faults).keys() == set(Kind)


def test_some_faults_overlap() -> None:
    faults = schedule(1, 600)
    overlapping = [
        (one, other)
        for place, one in enumerate(faults)
        for other in faults[place + 1 :]
        if other.at < one.at + one.seconds
    ]
    assert len(overlapping) > 10


def test_fault_is_described_in_log_and_schedule() -> None:
    fault = Fault(3.25, Kind.SKEW, "web-1", 5, -70)
    assert str(fault) == "   3.2 s  skew the clock web-1 for 5 s by -70 s"
