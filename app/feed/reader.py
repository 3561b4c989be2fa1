"""The feed of one web process: ONE reader for all its clients, and who of them is woken (ARCHITECTURE, The feed)."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.feed.buffer import FeedBuffer, Frame, Topic, encode_frame, topic_of
from app.lifecycle.drain import Drain
from app.writes.attempts import Attempts, Unavailable
from models.feed.pages import FeedFilter, FeedPage, read_feed
from models.feed.sequence import look_at_feed, sequence_feed
from models.state.cursors import FeedHead
from runtime import logs, metrics
from runtime.settings import Settings

T = TypeVar("T")
P = ParamSpec("P")

# One read of the reader; what numbering does in one pass.
PAGE_EVENTS: Final = 1000
# An event without a position for so long: whoever should have numbered it is away.
OVERDUE_SECONDS: Final = 1.0
NUMBERING_PASSES: Final = 50
SELDOM: Final = 6
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 1.0

log = logs.log(__name__)


class Listener(Protocol):
    """A client that waits for something it wants. It compares by identity."""

    which: FeedFilter

    def wake(self, nothing_until: int) -> None:
        """Something it wants is there; nothing it wants is at ``nothing_until`` or before."""

    def end_early(self, seconds: float) -> None:
        """End within so many seconds."""


class Feed:
    """The window, its reader, and the clients. A client is a cursor, not a queue: a slow one costs no memory."""

    def __init__(self, reader: Attempts, reads: Attempts, settings: Settings, drain: Drain) -> None:
        self.settings = settings
        self.drain = drain
        self._reader = reader
        self._reads = reads
        self._buffer: FeedBuffer | None = None
        self._opened = asyncio.Event()
        self._notified = asyncio.Event()
        self._clients: set[Listener] = set()
        # Nobody listened for a while, in which nothing was read.
        self._slept = False
        self._idle: dict[Topic, set[Listener]] = {}
        self._catching_up = asyncio.Semaphore(settings.catch_up_readers)
        drain.on_start(self._spread_ends)

    @property
    def buffer(self) -> FeedBuffer:
        """The window of now; another object after the feed began anew. Wait for ``opened`` first."""
        assert self._buffer is not None  # noqa: S101 -- who asks has waited
        return self._buffer

    async def opened(self) -> FeedBuffer:
        """Return the window once Postgres was read."""
        await self._opened.wait()
        return self.buffer

    def notify(self, head: int | None = None) -> None:
        """Read soon: there is something up to position ``head``, or something may have been missed (None)."""
        if self._clients and (head is None or self._buffer is None or head > self._buffer.high):
            self._notified.set()

    # its clients

    def join(self, client: Listener) -> None:
        """Count the client in."""
        if not self._clients:
            self._slept = True
            self._notified.set()
        self._clients.add(client)
        metrics.STREAMS.set(len(self._clients))

    def leave(self, client: Listener) -> None:
        """Forget the client."""
        self._clients.discard(client)
        self.not_idle(client)
        metrics.STREAMS.set(len(self._clients))

    def idle(self, client: Listener) -> None:
        """Wake the client, once, when something comes that it wants: it has seen all that the window holds."""
        self._idle.setdefault(topic_of(client.which), set()).add(client)

    def not_idle(self, client: Listener) -> None:
        """Do not wake the client any more."""
        topic = topic_of(client.which)
        waiting = self._idle.get(topic)
        if waiting is not None:
            waiting.discard(client)
            if not waiting:
                del self._idle[topic]

    async def patiently(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what one statement reads for a client, however long Postgres is away; few at once."""
        pause = FIRST_PAUSE
        while True:
            try:
                async with self._catching_up:
                    return await self._reads.autocommit(work, *args, **kwargs)
            except Unavailable:
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(pause * 2, LONGEST_PAUSE)

    # its reader

    async def read_forever(self) -> None:
        """Read on each ring, and look without one every ~0.5 s; nothing ends it.

        While nobody listens nothing is read, and whether somebody numbers the events is seldom looked at.
        """
        while True:
            try:
                await self._read()
            except Unavailable:
                # The bell may ring on; a Postgres that is away is not asked more often for it.
                await asyncio.sleep(LONGEST_PAUSE / 2)
            except Exception:
                log.exception("the feed could not be read")
                await asyncio.sleep(LONGEST_PAUSE)
            with contextlib.suppress(TimeoutError):
                pause = self.settings.feed_poll_seconds * (1 if self._clients else SELDOM)
                await asyncio.wait_for(self._notified.wait(), pause * random.uniform(0.8, 1.0))

    async def _read(self) -> None:
        if self._buffer is None or self._slept or not self._notified.is_set():
            head, overdue = await self._reader.autocommit(look_at_feed, OVERDUE_SECONDS)
            if overdue:
                await self._number()
            slept, self._slept = self._slept, False
            if self._buffer is None or (slept and head.position - self._buffer.high > PAGE_EVENTS):
                self._begin(head)
            elif not overdue and (head.epoch, head.position) == (self._buffer.epoch, self._buffer.high):
                return
        self._notified.clear()
        more = bool(self._clients)
        while more:
            more = self._take(await self._reader.autocommit(read_feed, self.buffer.high, limit=PAGE_EVENTS))

    async def number(self) -> None:
        """Number what is committed for a reader of a list, when no worker did; a lost race or a lock is no error."""
        try:
            await self._number()
        except (Unavailable, DBAPIError) as error:
            log.info("events are listed without cursors", error=type(error).__name__)
        self.notify()

    async def _number(self) -> None:
        """Do what the engine room should have done: it is away, or Redis is."""
        for _ in range(NUMBERING_PASSES):
            numbered = await self._reader.autocommit(sequence_feed)
            metrics.SEQUENCED.inc(numbered)
            if numbered < PAGE_EVENTS:
                return

    def _begin(self, head: FeedHead) -> None:
        """Open a window at the head; whoever was in a former one has to look where it is now."""
        limits = {
            "most_frames": self.settings.feed_window_events,
            "most_bytes": self.settings.feed_window_bytes,
        }
        self._buffer = FeedBuffer(head.epoch, head.position, **limits)
        self._opened.set()
        for client in list(self._clients):
            client.wake(0)

    def _take(self, page: FeedPage) -> bool:
        """Add a page to the window and wake whom it concerns; whether there is more."""
        buffer = self.buffer
        head = page.head
        # Above the floor all is there; below it something may be gone that was never read.
        if head.epoch != buffer.epoch or not head.floor <= buffer.high <= head.position:
            log.warning("the feed began anew", former=buffer.epoch, epoch=head.epoch, position=head.position)
            self._begin(head)
            return False
        former = buffer.high
        frames = [encode_frame(buffer.epoch, event) for event in page.events]
        buffer.append(frames, page.covers)
        self._wake(frames, former)
        return page.covers < head.position

    def _wake(self, frames: Sequence[Frame], former: int) -> None:
        for frame in frames:
            for topic in frame.topics():
                waiting = self._idle.get(topic)
                if waiting:
                    for client in [one for one in waiting if frame.passes(one.which)]:
                        client.wake(former)

    def _spread_ends(self) -> None:
        for client in list(self._clients):
            client.end_early(self.drain.give_up_in())
