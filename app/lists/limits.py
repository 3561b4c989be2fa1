import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, TypeVar

from starlette.exceptions import HTTPException

from app.lifecycle.drain import Drain
from app.writes.attempts import Unavailable

Page = TypeVar("Page")

# Limits of a process; fewer pages than its connections for reads, so that a read of one row finds one.
PAGES_AT_ONCE: Final = 2
LISTS_AT_ONCE: Final = 100
# Refuse a list that waited this long for a place.
LONGEST_WAIT: Final = 10.0


class _Places:
    def __init__(self, number: int) -> None:
        self._number = number
        self._keys: dict[str, tuple[asyncio.Semaphore, set[object]]] = {}

    @asynccontextmanager
    async def place(self, key: str, seconds: float) -> AsyncIterator[None]:
        free, users = self._keys.setdefault(key, (asyncio.Semaphore(self._number), set()))
        user = object()
        users.add(user)
        try:
            async with asyncio.timeout(seconds):
                await free.acquire()
            try:
                yield
            finally:
                free.release()
        finally:
            users.discard(user)
            if not users:
                self._keys.pop(key, None)


class ListLimits:
    def __init__(self, drain: Drain, lists_per_caller: int) -> None:
        self._drain = drain
        self._per_caller = lists_per_caller
        self._lists_of_callers = _Places(lists_per_caller)
        self._lists = _Places(LISTS_AT_ONCE)
        self._pages_of_callers = _Places(1)
        self._pages = _Places(PAGES_AT_ONCE)
        self.open = 0

    async def enter(self, caller: str) -> AsyncExitStack:
        """Enter a list; return the stack that leaves it. Raises HTTPException 429 when its caller has too many open,
        and Unavailable when the process has.
        """
        places = AsyncExitStack()
        seconds = min(LONGEST_WAIT, self._drain.give_up_in())
        async with places:
            if caller and self._per_caller:
                try:
                    await places.enter_async_context(self._lists_of_callers.place(caller, seconds))
                except TimeoutError:
                    detail = f"Too many lists at once: {self._per_caller} are allowed; read them, or ask for pages"
                    raise HTTPException(429, detail, {"Retry-After": "1"}) from None
            try:
                await places.enter_async_context(self._lists.place("", seconds))
            except TimeoutError:
                raise Unavailable from None
            self.open += 1
            places.callback(self._ended)
            return places.pop_all()

    async def make(self, caller: str, fetch: Callable[[], Awaitable[Page]]) -> Page:
        """Return a page, read when its turn comes: one at once per caller, two per process. Raises Unavailable."""
        async with AsyncExitStack() as places:
            try:
                if caller:
                    await places.enter_async_context(self._pages_of_callers.place(caller, LONGEST_WAIT))
                await places.enter_async_context(self._pages.place("", LONGEST_WAIT))
            except TimeoutError:
                raise Unavailable from None
            return await fetch()

    def _ended(self) -> None:
        self.open -= 1
