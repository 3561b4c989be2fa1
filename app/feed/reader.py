import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.feed.buffer import FeedBuffer, Frame, Topic, encode_frame, topic_of
from app.lifecycle.drain import Drain
from app.writes.attempts import Attempts, Unavailable
from models.feed.pages import FeedFilter, FeedPage, read_feed
from models.feed.sequence import PASS_EVENTS, read_head_and_overdue, sequence_feed
from models.state.cursors import FeedHead
from runtime import logs, metrics
from runtime.loops import jittered, run_forever
from runtime.settings import Settings

T = TypeVar("T")
P = ParamSpec("P")

# Events of one read.
PAGE_EVENTS: Final = 1000
# An event without a position for this long shows that no worker numbers events.
OVERDUE_SECONDS: Final = 1.0
NUMBERING_PASSES: Final = 50
SELDOM: Final = 6
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 1.0

log = logs.log(__name__)


class Listener(Protocol):
    which: FeedFilter

    def wake(self, nothing_until: int) -> None:
        """Wake the client: an event that it wants is there, and none at ``nothing_until`` or before."""

    def end_early(self, seconds: float) -> None: ...


class Feed:
    """Feed of one web process: buffer, reader and clients. A client is a cursor, not a queue: a slow one costs no
    memory.
    """

    def __init__(self, reader: Attempts, reads: Attempts, settings: Settings, drain: Drain) -> None:
        self.settings = settings
        self.drain = drain
        self._reader = reader
        self._reads = reads
        self._buffer: FeedBuffer | None = None
        self._opened = asyncio.Event()
        self._notified = asyncio.Event()
        # Highest position for which a read was asked: the same head arrives from this process and through Redis.
        self._asked = 0
        # Moment from which the buffer is behind that position.
        self._behind_since: float | None = None
        self._clients: set[Listener] = set()
        # Set by the first client after a time without any, in which nothing was read.
        self._was_without_clients = False
        self._idle: dict[Topic, set[Listener]] = {}
        self._catching_up = asyncio.Semaphore(settings.catch_up_readers)
        drain.on_start(self._spread_ends)

    @property
    def buffer(self) -> FeedBuffer:
        """Return the current buffer, which is replaced when the feed restarts. Wait for ``opened`` first."""
        assert self._buffer is not None  # noqa: S101 -- callers have waited
        return self._buffer

    async def opened(self) -> FeedBuffer:
        await self._opened.wait()
        return self.buffer

    def notify(self, head: int | None = None) -> None:
        """Read soon: there may be events up to position ``head``, or messages were lost (None)."""
        if not self._clients:
            return
        if head is not None and self._buffer is not None:
            if head <= max(self._buffer.high, self._asked):
                return
            self._asked = head
            if self._behind_since is None:
                self._behind_since = asyncio.get_running_loop().time()
        self._notified.set()

    def lag(self) -> tuple[int, float]:
        """Return how many positions the buffer is behind the head that was announced, and for how many seconds."""
        if self._behind_since is None or self._buffer is None:
            return 0, 0.0
        events = max(0, self._asked - self._buffer.high)
        return events, asyncio.get_running_loop().time() - self._behind_since if events else 0.0

    # Clients.

    def join(self, client: Listener) -> None:
        if not self._clients:
            self._was_without_clients = True
            self._notified.set()
        self._clients.add(client)
        metrics.STREAMS.set(len(self._clients))

    def leave(self, client: Listener) -> None:
        self._clients.discard(client)
        self.not_idle(client)
        metrics.STREAMS.set(len(self._clients))

    def idle(self, client: Listener) -> None:
        """Have the client woken, once, by the next event that it wants: it has seen all of the buffer."""
        self._idle.setdefault(topic_of(client.which), set()).add(client)

    def not_idle(self, client: Listener) -> None:
        topic = topic_of(client.which)
        waiting = self._idle.get(topic)
        if waiting is not None:
            waiting.discard(client)
            if not waiting:
                del self._idle[topic]

    async def read_patiently(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what one statement reads for a client, repeated while Postgres is away; few run at once."""
        pause = FIRST_PAUSE
        while True:
            try:
                async with self._catching_up:
                    return await self._reads.autocommit(work, *args, **kwargs)
            except Unavailable:
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(pause * 2, LONGEST_PAUSE)

    # Reader.

    async def read_forever(self) -> None:
        """Read after each wake-up, and look every ~0.5 s without one; never returns.

        Without clients nothing is read, and the check for events without a position is six times rarer.
        """
        # Wake-ups may go on arriving; do not ask a Postgres that is away any more often for them.
        await run_forever(
            self._read,
            failure="reading the feed failed",
            every=lambda: jittered(self.settings.feed_poll_seconds * (1 if self._clients else SELDOM)),
            woken=self._notified,
            pause_after_failure=LONGEST_PAUSE / 2,
            silent=(Unavailable,),
        )

    async def _read(self) -> None:
        if self._buffer is None or self._was_without_clients or not self._notified.is_set():
            head, overdue = await self._reader.autocommit(read_head_and_overdue, OVERDUE_SECONDS)
            if overdue:
                await self._number()
            was_without_clients, self._was_without_clients = self._was_without_clients, False
            if self._buffer is None or (was_without_clients and head.position - self._buffer.high > PAGE_EVENTS):
                self._begin(head)
            elif not overdue and (head.epoch, head.position) == (self._buffer.epoch, self._buffer.high):
                return
        self._notified.clear()
        more = bool(self._clients)
        while more:
            more = self._take(await self._reader.autocommit(read_feed, self.buffer.high, limit=PAGE_EVENTS))

    async def number(self) -> None:
        """Number committed events for the reader of a list if no worker did; a lost race or a lock is no error."""
        try:
            await self._number()
        except (Unavailable, DBAPIError) as error:
            log.info("numbering failed, events listed without cursors", error=type(error).__name__)
        self.notify()

    async def _number(self) -> None:
        for _ in range(NUMBERING_PASSES):
            numbered = await self._reader.autocommit(sequence_feed)
            metrics.SEQUENCED.labels("reader").inc(numbered)
            if numbered < PASS_EVENTS:
                return

    def _begin(self, head: FeedHead) -> None:
        limits = {
            "most_frames": self.settings.feed_window_events,
            "most_bytes": self.settings.feed_window_bytes,
        }
        self._buffer = FeedBuffer(head.epoch, head.position, **limits)
        self._asked = 0
        self._behind_since = None
        self._opened.set()
        for client in list(self._clients):
            client.wake(0)

    def _take(self, page: FeedPage) -> bool:
        buffer = self.buffer
        head = page.head
        # Complete above the floor; below it, events may be gone that were never read.
        if head.epoch != buffer.epoch or not head.floor <= buffer.high <= head.position:
            log.warning("feed restarted", previous=buffer.epoch, epoch=head.epoch, position=head.position)
            self._begin(head)
            return False
        previous = buffer.high
        frames = [encode_frame(buffer.epoch, event) for event in page.events]
        buffer.append(frames, page.covers)
        if buffer.high >= self._asked:
            self._behind_since = None
        self._wake(frames, previous)
        return page.covers < head.position

    def _wake(self, frames: Sequence[Frame], previous: int) -> None:
        for frame in frames:
            for topic in frame.topics():
                waiting = self._idle.get(topic)
                if waiting:
                    for client in [waiter for waiter in waiting if frame.passes(waiter.which)]:
                        client.wake(previous)

    def _spread_ends(self) -> None:
        for client in list(self._clients):
            client.end_early(self.drain.give_up_in())
