"""Wait for runs to end (``GET /runs/{id}?wait=``), with one query for all waiting requests."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from app.writes.attempts import Attempts, Unavailable
from models.state.runs import Run, runs_ended
from runtime.loops import jittered, run_forever

LOOK_SECONDS: Final = 0.5
MOST_AT_ONCE: Final = 1000


class RunWaiters:
    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        self._waiting: dict[str, set[asyncio.Future[Run | None]]] = {}
        self._nudged = asyncio.Event()

    async def until_ended(self, run_id: str, seconds: float, gone: asyncio.Future[None]) -> Run | None:
        """Return the run when it is terminal; None when the time is up or the client disconnected."""
        ended: asyncio.Future[Run | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(run_id, set()).add(ended)
        try:
            either: set[asyncio.Future[Any]] = {ended, gone}
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return ended.result() if ended.done() else None
        finally:
            others = self._waiting[run_id]
            others.discard(ended)
            if not others:
                del self._waiting[run_id]

    def hint(self, run_ids: Iterable[str]) -> None:
        """Look at once if a request waits for one of these runs: it may just have ended here."""
        if self._waiting and any(run_id in self._waiting for run_id in run_ids):
            self._nudged.set()

    def give_up(self) -> None:
        for waiters in self._waiting.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def look_forever(self) -> None:
        await run_forever(
            self._look,
            failure="looking for ended runs failed",
            every=lambda: jittered(LOOK_SECONDS),
            woken=self._nudged,
            silent=(Unavailable,),
        )

    async def _look(self) -> None:
        self._nudged.clear()
        run_ids = list(self._waiting)
        for first in range(0, len(run_ids), MOST_AT_ONCE):
            for run in await self._attempts.autocommit(runs_ended, run_ids[first : first + MOST_AT_ONCE]):
                for waiter in self._waiting.get(run.run_id, ()):
                    if not waiter.done():
                        waiter.set_result(run)
