"""Turns: who asks for more than its share of this process waits a little, so that others need not."""

import asyncio
from collections import OrderedDict
from typing import Final

from app.lifecycle.drain import Drain

LONGEST_TURN: Final = 1.0
MOST_CALLERS: Final = 10_000


class Throttle:
    """Hands out a moment to each who comes with a key: ``a_second`` of them a second, and as many at once; 0: now.

    A flood that waits for its answers is slowed to that. One that does not wait gets no further behind than
    ``LONGEST_TURN``: nobody is refused, or kept from its answer for longer.
    """

    def __init__(self, drain: Drain, a_second: int) -> None:
        self._drain = drain
        self._apart = 1 / a_second if a_second else 0.0
        self._moments: OrderedDict[str, float] = OrderedDict()

    async def wait(self, key: str) -> None:
        """Return when it is the turn of this one; at once unless many came before it."""
        delay = min(self.delay(key, asyncio.get_running_loop().time()), self._drain.give_up_in())
        if delay > 0:
            await asyncio.sleep(delay)

    def delay(self, key: str, now: float) -> float:
        """Take the next moment of the key; in how many seconds it is, not above zero when it is due."""
        first = now - 1.0
        moment = min(max(self._moments.get(key, first), first) + self._apart, now + LONGEST_TURN)
        self._moments[key] = moment
        self._moments.move_to_end(key)
        if len(self._moments) > MOST_CALLERS:
            self._moments.popitem(last=False)
        return moment - now
