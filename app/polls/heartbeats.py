"""Count every request of a runner as a heartbeat, written at most every 10 s per runner and process."""

import asyncio
from collections.abc import Iterable
from typing import Final, TypeAlias

from app.writes.group_commit import GroupCommit
from models.runners.heartbeat import Touch, Touched

TOUCH_SECONDS: Final = 10.0

# Runner, and the subject that sends the heartbeat (models.state.visibility.acts_for).
RunnerSubject: TypeAlias = tuple[str, str | None]


class Heartbeats:
    def __init__(self, touches: GroupCommit[Touch, Touched]) -> None:
        self._touches = touches
        self._touched: dict[RunnerSubject, float] = {}
        self._next_sweep = 0.0

    def seen(self, heartbeats: Iterable[RunnerSubject]) -> None:
        """Renew the runners' heartbeats soon. A write that fails is made up for by their next request."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_sweep:
            self._next_sweep = now + TOUCH_SECONDS
            self._touched = {key: at for key, at in self._touched.items() if at > now - TOUCH_SECONDS}
        for runner_subject in heartbeats:
            if self._touched.get(runner_subject, 0.0) <= now - TOUCH_SECONDS:
                self._touched[runner_subject] = now
                runner_id, subject = runner_subject
                self._touches.submit(Touch(runner_id, subject=subject))
