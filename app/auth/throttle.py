import asyncio
from typing import Final

from cachetools import LRUCache

from app.lifecycle.drain import Drain

LONGEST_TURN: Final = 1.0
MOST_CALLERS: Final = 10_000


class Throttle:
    """Rate limiter per key: ``rate`` per second, burst of one second; 0 disables it.

    A client that waits for its answers is slowed down to that rate. One that does not wait is delayed by at most
    ``LONGEST_TURN``; no request is refused.
    """

    def __init__(self, drain: Drain, rate: int) -> None:
        self._drain = drain
        self._interval = 1 / rate if rate else 0.0
        self._moments: LRUCache[str, float] = LRUCache(MOST_CALLERS)

    async def wait(self, key: str) -> None:
        delay = min(self.delay(key, asyncio.get_running_loop().time()), self._drain.give_up_in())
        if delay > 0:
            await asyncio.sleep(delay)

    def delay(self, key: str, now: float) -> float:
        first = now - 1.0
        moment = min(max(self._moments.get(key, first), first) + self._interval, now + LONGEST_TURN)
        self._moments[key] = moment
        return moment - now
