import asyncio
from collections.abc import Callable
from typing import Final

from app.writes.attempts import Attempts, Unavailable
from models.claims.parking import any_poll_parked
from runtime.loops import run_forever
from runtime.names import Actor

# Assume for this long after a look that a poll still waits, but look again once a second.
WAITING_SECONDS: Final = 5.0
LOOK_AGAIN_SECONDS: Final = 1.0
# Look so rarely under load: commits of the meantime share a look.
LOOK_PAUSE_SECONDS: Final = 0.01


class DispatchWakeups:
    """Filter between the verbs, which notify after their commits, and the wake-ups sent (ARCHITECTURE, Dispatch).

    A look that finds no poll is conclusive: it comes after the commit, and a poll parked later claims once more after
    it is parked (``models.claims.polls.claim_parked``), so that it finds what was committed.
    """

    def __init__(self, looks: Attempts, notify: Callable[[Actor], None], any_parked: Callable[[], bool]) -> None:
        self._looks = looks
        self._notify = notify
        self._any_parked = any_parked
        self._due = asyncio.Event()
        self._owed = False
        self._looked_at = self._waiting_until = float("-inf")

    def notify(self, actor: Actor) -> None:
        """Wake ``actor`` soon; dispatch only if a poll waits here or elsewhere. Never blocks, never raises."""
        if actor is not Actor.DISPATCH or self._any_parked():
            self._notify(actor)
            return
        now = asyncio.get_running_loop().time()
        known = now < self._waiting_until
        if known:
            self._notify(actor)
        else:
            self._owed = True
        if not known or now >= self._looked_at + LOOK_AGAIN_SECONDS:
            self._due.set()

    async def look_forever(self) -> None:
        await run_forever(
            self._look, failure="looking for waiting polls failed", woken=self._due, silent=(Unavailable,)
        )

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time
        await asyncio.sleep(self._looked_at + LOOK_PAUSE_SECONDS - now())
        # A look covers what was committed before it began.
        self._due.clear()
        owed, self._owed = self._owed, False
        self._looked_at = now()
        # A look that fails proves nothing.
        any_waits = True
        try:
            any_waits = await self._looks.autocommit(any_poll_parked)
        finally:
            self._waiting_until = now() + WAITING_SECONDS if any_waits else float("-inf")
            if any_waits and owed:
                self._notify(Actor.DISPATCH)
