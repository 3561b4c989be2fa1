import asyncio
import math
from array import array
from collections.abc import Sequence
from time import perf_counter
from typing import Final

BEGINS: Final = "window begins"
ENDS: Final = "window ends"


class Meter:
    """Counter of one window. Things that began before it and end within it count; things that end after it do not."""

    def __init__(self) -> None:
        self.over = False
        self.count = 0
        self.latencies = array("d")
        self.steps: dict[str, array[float]] = {}
        self._began_at = 0.0
        self._seconds = 0.0

    async def window(self, seconds: float, *, warm_up: float = 1.0) -> None:
        await asyncio.sleep(warm_up)
        self.begin()
        await asyncio.sleep(seconds)
        self.end()

    def begin(self) -> None:
        print(BEGINS, flush=True)
        self._began_at = perf_counter()

    def end(self) -> None:
        self._seconds = perf_counter() - self._began_at
        self.over = True
        print(ENDS, flush=True)

    def note(self, began: float, count: int = 1) -> None:
        if self._began_at and not self.over:
            self.count += count
            self.latencies.append(perf_counter() - began)

    def step(self, name: str, began: float) -> None:
        if self._began_at and not self.over:
            self.steps.setdefault(name, array("d")).append(perf_counter() - began)

    def figures(self) -> dict[str, float]:
        """Return `rate` a second, `count`, and `p50`, `p99` and `max` in milliseconds. Raises ValueError without a
        count.
        """
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
    """Return the least value that `percent` of all do not exceed (nearest rank). `ordered` ascends and is not empty."""
    rank = math.ceil(len(ordered) * percent / 100)
    return ordered[max(rank, 1) - 1]
