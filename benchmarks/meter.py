"""What a load measures: how many of something ended within one window, and how long each took."""

import asyncio
import math
from array import array
from collections.abc import Sequence
from time import perf_counter
from typing import Final

BEGINS: Final = "window begins"
ENDS: Final = "window ends"


class Meter:
    """One window. What began before it and ends within it counts, what ends after it does not."""

    def __init__(self) -> None:
        self.over = False
        self.count = 0
        self.latencies = array("d")
        self.steps: dict[str, array[float]] = {}
        self._began_at = 0.0
        self._seconds = 0.0

    async def window(self, seconds: float, *, warm_up: float = 1.0) -> None:
        """Let the load run for `warm_up` uncounted, then for `seconds` counted. The controller is told of both ends."""
        await asyncio.sleep(warm_up)
        self.begin()
        await asyncio.sleep(seconds)
        self.end()

    def begin(self) -> None:
        """From now on what ends is counted."""
        print(BEGINS, flush=True)
        self._began_at = perf_counter()

    def end(self) -> None:
        """Nothing that ends later is counted; loads look at `over` and stop."""
        self._seconds = perf_counter() - self._began_at
        self.over = True
        print(ENDS, flush=True)

    def note(self, began: float, count: int = 1) -> None:
        """Something that began at `began` (perf_counter) has ended; it was worth `count`."""
        if self._began_at and not self.over:
            self.count += count
            self.latencies.append(perf_counter() - began)

    def step(self, name: str, began: float) -> None:
        """A part of what is counted, which began at `began`, has ended: `figures` has its median as `<name>_p50`."""
        if self._began_at and not self.over:
            self.steps.setdefault(name, array("d")).append(perf_counter() - began)

    def figures(self) -> dict[str, float]:
        """`rate` a second, `count`, and `p50`, `p99` and `max` in milliseconds. Raises ValueError without a count."""
        if not self.count:
            raise ValueError("nothing ended within the window")
        ordered = sorted(self.latencies)
        return {
            "rate": self.count / self._seconds,
            "count": self.count,
            "p50": 1000 * percentile(ordered, 50),
            "p99": 1000 * percentile(ordered, 99),
            "max": 1000 * ordered[-1],
            **{f"{name}_p50": 1000 * percentile(sorted(took), 50) for name, took in self.steps.items()},
        }


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The least value that `percent` of all are not above (nearest rank). `ordered` ascends and is not empty."""
    rank = math.ceil(len(ordered) * percent / 100)
    return ordered[max(rank, 1) - 1]
