"""Measures of the rollup, and percentiles from its histograms."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from models.core.statuses import RunStatus


class Measure(StrEnum):
    SUBMITTED = "submitted"
    CLAIMED = "claimed"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"
    # Histograms of seconds: from readiness to the claim, from the start to the end.
    WAIT = "wait"
    DURATION = "duration"


ENDS: Final = {
    Measure.COMPLETED: RunStatus.COMPLETED,
    Measure.FAILED: RunStatus.FAILED,
    Measure.STOPPED: RunStatus.STOPPED,
}
# Upper bounds of the buckets in seconds; the last bucket has none.
BOUNDS: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 10_800.0, 43_200.0)


def percentile(buckets: Mapping[int, int], share: float) -> float | None:
    """Return the value below which this share of a histogram lies, linear within its bucket; None for an empty one.

    Buckets are numbered from 1; in the last one it is its lower bound.
    """
    left = share * sum(buckets.values())
    if left <= 0:
        return None
    for bucket in sorted(buckets):
        number = buckets[bucket]
        if left <= number:
            lower = BOUNDS[bucket - 2] if bucket > 1 else 0.0
            upper = BOUNDS[bucket - 1] if bucket <= len(BOUNDS) else lower
            return lower + (upper - lower) * left / number
        left -= number
    return float(BOUNDS[-1])
