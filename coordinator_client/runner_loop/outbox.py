import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic

from coordinator_client.types import NewEvent

# Waiting events at most; a process that prints more blocks on its pipe until some are accepted.
MOST_WAITING = 2000
MOST_WAITING_SIZE = 2 * 1024 * 1024
# Events in one request.
MOST_AT_ONCE = 500
MOST_AT_ONCE_SIZE = 1024 * 1024
# Pause between two requests, so that one request takes all lines that a process prints meanwhile.
GATHER_SECONDS = 0.1


class Outbox:
    """Bounded queue of events; `send` returns False once the claim is lost.

    From then on waiting events and later ones are dropped.
    """

    def __init__(self, send: Callable[[list[NewEvent]], Awaitable[bool]]) -> None:
        self._send = send
        self._waiting: deque[tuple[NewEvent, int]] = deque()
        self._size = 0
        self._closed = asyncio.Event()
        self._something = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.refused = False

    @property
    def size(self) -> int:
        """Number of waiting bytes, roughly."""
        return self._size

    async def put(self, event: NewEvent, size: int) -> None:
        """Add an event of about `size` bytes; block while too many are waiting."""
        await self._room.wait()
        self.put_nowait(event, size)

    def put_nowait(self, event: NewEvent, size: int) -> None:
        if self.refused:
            return
        self._waiting.append((event, size))
        self._size += size
        self._something.set()
        if len(self._waiting) >= MOST_WAITING or self._size >= MOST_WAITING_SIZE:
            self._room.clear()

    def close(self) -> None:
        self._closed.set()
        self._something.set()

    def refuse(self) -> None:
        self.refused = True
        self._waiting.clear()
        self._size = 0
        self._room.set()
        self.close()

    async def deliver(self) -> bool:
        sent_at = 0.0
        while not self.refused:
            await self._something.wait()
            if not self._waiting and self._closed.is_set():
                break
            if len(self._waiting) < MOST_AT_ONCE:
                await self._gather(sent_at + GATHER_SECONDS - monotonic())
            batch = self._take()
            sent_at = monotonic()
            if batch and not await self._send(batch):
                self.refuse()
        return not self.refused

    async def _gather(self, seconds: float) -> None:
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):  # wait_for would swallow a cancellation (Python 3.11)
                    await self._closed.wait()
            except TimeoutError:
                return

    def _take(self) -> list[NewEvent]:
        batch: list[NewEvent] = []
        size = 0
        while self._waiting and len(batch) < MOST_AT_ONCE and (not batch or size < MOST_AT_ONCE_SIZE):
            event, event_size = self._waiting.popleft()
            batch.append(event)
            size += event_size
        self._size -= size
        if len(self._waiting) < MOST_WAITING and self._size < MOST_WAITING_SIZE:
            self._room.set()
        if not self._waiting and not self._closed.is_set():
            self._something.clear()
        return batch
