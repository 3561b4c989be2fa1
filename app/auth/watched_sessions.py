"""End streams and held requests with the session of the console that opened them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from cachetools import FIFOCache
from sqlalchemy.exc import DBAPIError

from app.auth.watchers import Watchers
from app.writes.attempts import Attempts, Unavailable
from models.auth.console_sessions import find_console_sessions
from models.core.errors import CoordinatorError
from runtime.loops import jittered, run_forever

# Together with the time for which an instance knows a session, less than 5 s.
LOOK_SECONDS: Final = 2.0
MOST_ENDED: Final = 10_000


class WatchedSessions:
    """Sessions that hold something open in this process, read again every ~2 s: another instance may close them."""

    def __init__(self, watch: Attempts) -> None:
        self._watch = watch
        self._watchers = Watchers()
        self._ended: FIFOCache[str, None] = FIFOCache(MOST_ENDED)

    def watching(self, session_hash: str, end: Callable[[], None]) -> AbstractContextManager[None]:
        return self._watchers.watching(session_hash, end)

    def has_ended(self, session_hash: str) -> bool:
        """Return whether this process knows that the session was closed; a session that was closed stays so."""
        return session_hash in self._ended

    def end(self, session_hash: str) -> None:
        self._ended[session_hash] = None
        self._watchers.end(session_hash)

    async def watch_forever(self) -> None:
        await run_forever(
            self._look,
            failure="watching sessions of the console failed",
            every=lambda: jittered(LOOK_SECONDS),
            expected=(DBAPIError,),
            silent=(Unavailable,),
        )

    async def _look(self) -> None:
        hashes = sorted(self._watchers)
        if not hashes:
            return
        found = await self._watch.autocommit(find_console_sessions, hashes)
        for session_hash, session in zip(hashes, found, strict=True):
            if isinstance(session, CoordinatorError):
                self.end(session_hash)
