"""Send wake-ups of the web; skip those of dispatch while no poll waits, since each wakes a worker."""

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


class DispatchWakeups:
    """Filter between the verbs, which notify after their commits, and the wake-ups sent (ARCHITECTURE, Dispatch).

    A look that finds no poll is conclusive: it comes after the commit, and a poll parked later claims once more after
    it is parked (``models.claims.polls.claim_parked``), so that it finds what was committed.
    """

    def __init__(self, looks: Attempts, notify: Callable[[Actor], None], holds_polls: Callable[[], bool]) -> None:
        self._looks = looks
        self._notify = notify
        self._holds_polls = holds_polls
        self._due = asyncio.Event()
        self._owed = False
        self._looked_at = self._waiting_until = float("-inf")

    def notify(self, actor: Actor) -> None:
        """Wake ``actor`` soon; dispatch only if a poll waits here or elsewhere. Never blocks, never raises."""
        if actor is not Actor.DISPATCH or self._holds_polls():
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
        """Look for waiting polls when a wake-up needs to know, once for all wake-ups of the meantime."""
        await run_forever(
            self._look, failure="looking for waiting polls failed", woken=self._due, silent=(Unavailable,)
        )

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time
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
