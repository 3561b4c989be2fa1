"""Signs of life: every request of a runner is one, written at most every 10 s per runner and process."""

import asyncio
from collections.abc import Iterable
from typing import Final, TypeAlias

from app.writes.group_commit import GroupCommit
from models.runners.heartbeat import Heard, Touch

TOUCH_SECONDS: Final = 10.0

# A runner, and the subject that gives the sign (models.state.visibility.acts_for).
Sign: TypeAlias = tuple[str, str | None]


class Signs:
    """Remembers which runners were touched lately and touches the others, without anybody waiting for it."""

    def __init__(self, touches: GroupCommit[Touch, Heard]) -> None:
        self._touches = touches
        self._touched: dict[Sign, float] = {}
        self._next_sweep = 0.0

    def seen(self, signs: Iterable[Sign]) -> None:
        """Renew the runners' signs of life soon. What fails is made up for by their next request."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_sweep:
            self._next_sweep = now + TOUCH_SECONDS
            self._touched = {one: at for one, at in self._touched.items() if at > now - TOUCH_SECONDS}
        for sign in signs:
            if self._touched.get(sign, 0.0) <= now - TOUCH_SECONDS:
                self._touched[sign] = now
                runner_id, subject = sign
                self._touches.soon(Touch(runner_id, subject=subject))
