"""Signs of life: every request of a runner is one, written at most every 10 s per runner and process."""

import asyncio
from collections.abc import Iterable
from typing import Final

from app.batching import GroupCommit
from models.runners import Touch

TOUCH_SECONDS: Final = 10.0


class Signs:
    """Remembers which runners were touched lately and touches the others, without anybody waiting for it."""

    def __init__(self, touches: GroupCommit[Touch, bool]) -> None:
        self._touches = touches
        self._touched: dict[str, float] = {}
        self._next_sweep = 0.0

    def seen(self, runner_ids: Iterable[str]) -> None:
        """Renew the runners' sign of life soon. What fails is made up for by their next request."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_sweep:
            self._next_sweep = now + TOUCH_SECONDS
            self._touched = {one: at for one, at in self._touched.items() if at > now - TOUCH_SECONDS}
        for runner_id in runner_ids:
            if self._touched.get(runner_id, 0.0) <= now - TOUCH_SECONDS:
                self._touched[runner_id] = now
                self._touches.soon(Touch(runner_id))
