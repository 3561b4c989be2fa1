import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from app.feed.buffer import CHUNK_BYTES, FeedBuffer, Frame, encode_frame
from app.feed.reader import Feed
from app.http.lenient import encode
from app.http.problems import accepted
from models.core.callers import Caller
from models.feed.pages import FeedFilter, read_feed
from models.feed.sequence import read_head
from models.runs.lists import SessionFilter, list_sessions
from models.state.cursors import Cursor, FeedHead, ResetReason, parse_cursor, reset_reason
from models.state.sessions import session_json
from runtime import metrics

HEARTBEAT: Final = b": heartbeat\n\n"
# White space between the tokens of a JSON text that is partly sent.
BLANK: Final = b" "
# Range of `retry:`, so that clients disconnected together do not return together.
RETRY_MILLISECONDS: Final = (1000, 3000)
SNAPSHOT_PAGE: Final = 500
# Look again after this long if the buffer does not reach back to the client's position.
LAG_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Wanted:
    caller: Caller
    which: FeedFilter
    cursor: str | None = None
    include_init: bool = True


class Stream:
    """Messages of one client, whole or in parts. Each part is sent before the next is made: nothing is queued."""

    def __init__(self, feed: Feed, wanted: Wanted) -> None:
        self.which = wanted.which
        self._feed = feed
        self._wanted = wanted
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        lifetime = feed.settings.stream_lifetime_seconds * random.uniform(0.8, 1.2)
        self._end = self._loop.call_later(min(lifetime, feed.drain.give_up_in()), self._expire)
        self._end_reason = "lifetime"
        self._epoch = ""
        self._position = 0
        # Position from which the client would resume: on a sparse feed it falls behind the current one.
        self._sent_position = 0
        # Buffer known to continue this history.
        self._buffer: FeedBuffer | None = None
        self._woken: asyncio.Future[bool] | None = None
        self._idle_since = 0.0
        self._heartbeat_timer: asyncio.TimerHandle | None = None
        self._heartbeat = HEARTBEAT

    async def messages(self) -> AsyncGenerator[bytes]:
        self._feed.join(self)
        try:
            yield _retry()
            async with aclosing(self._paced(self._first_messages())) as parts:
                async for part in parts:
                    yield part
            while not self._ended.done():
                if self._is_in_buffer():
                    part = self._from_buffer() or await self._idle()
                    if part:
                        yield part
                    continue
                async with aclosing(self._paced(self._catch_up())) as parts:
                    async for part in parts:
                        yield part
            if self._heartbeat is not BLANK:
                yield _retry()
        finally:
            self._end.cancel()
            if self._heartbeat_timer is not None:
                self._heartbeat_timer.cancel()
            self._feed.leave(self)

    def wake(self, nothing_until: int) -> None:
        self._feed.not_idle(self)
        if self._woken is not None and not self._woken.done():
            self._position = max(self._position, nothing_until)
            self._woken.set_result(True)

    def end_early(self, seconds: float, reason: str = "drain") -> None:
        if self._loop.time() + seconds < self._end.when():
            self._end_reason = reason
            self._end.cancel()
            self._end = self._loop.call_later(seconds, self._expire)

    # First messages.

    async def _first_messages(self) -> AsyncGenerator[bytes]:
        buffer = await self._feed.opened()
        head = await self._feed.read_patiently(read_head)
        given = self._wanted.cursor
        cursor = None if given is None else parse_cursor(given)
        reason = reset_reason(cursor, head)
        if given is None and not self._wanted.include_init:
            yield self._start(buffer, head, head.position)
        elif given is None or (cursor is not None and cursor.owed):
            yield b"id: %s\n\n" % _owed(head)
            async for part in self._send_snapshot(buffer, head):
                yield part
        elif cursor is None or reason is not None:
            async for part in self._reset(reason or ResetReason.MALFORMED, buffer, head):
                yield part
        else:
            yield self._start(buffer, head, cursor.position)

    def _start(self, buffer: FeedBuffer, head: FeedHead, position: int) -> bytes:
        self._epoch, self._position = head.epoch, position
        self._join(buffer, head)
        return b"id: %s\n\n" % self._cursor()

    async def _reset(self, reason: ResetReason, buffer: FeedBuffer, head: FeedHead) -> AsyncGenerator[bytes]:
        """Send `reset`, since history is incomplete, and then a snapshot even if the client asked for none."""
        metrics.RESETS.labels(reason).inc()
        yield b'id: %s\nevent: reset\ndata: {"reason":"%s"}\n\n' % (_owed(head), reason.encode())
        async for part in self._send_snapshot(buffer, head):
            yield part

    async def _send_snapshot(self, buffer: FeedBuffer, head: FeedHead) -> AsyncGenerator[bytes]:
        """Yield ``init``, one message in parts: all sessions of the filter, newest first, as of the head or later.

        Later changes of these sessions follow in the feed.
        """
        self._epoch, self._position = head.epoch, head.position
        opening = b'id: %s\nevent: init\ndata: {"sessions":[' % self._cursor()
        shown = SessionFilter(session_id=self.which.session_id, run_id=self.which.run_id, owner=self.which.owner)
        left = self._feed.settings.init_limit
        after: str | None = None
        while True:
            page = accepted(
                await self._feed.read_patiently(
                    list_sessions, self._wanted.caller, shown, limit=min(SNAPSHOT_PAGE, left), after=after
                )
            )
            # Only after the first line of the message: a blank in front of `id:` would make it another field.
            self._heartbeat = BLANK
            yield opening + b",".join(encode(session_json(session)) for session in page.sessions)
            opening, after = b",", page.next_cursor
            left -= len(page.sessions)
            if after is None or left <= 0:
                break
        self._heartbeat = HEARTBEAT
        yield b'],"truncated":true}\n\n' if after is not None else b"]}\n\n"
        self._join(buffer, head)

    # Catching up.

    async def _catch_up(self) -> AsyncGenerator[bytes]:
        while not self._is_in_buffer():
            buffer = self._feed.buffer
            most = self._feed.settings.catch_up_page_events
            page = await self._feed.read_patiently(read_feed, self._position, self.which, limit=most)
            metrics.CATCH_UP_PAGES.inc()
            reason = reset_reason(Cursor(self._epoch, self._position), page.head)
            if reason is not None:
                async for part in self._reset(reason, buffer, page.head):
                    yield part
                continue
            for chunk in _chunks([encode_frame(self._epoch, event) for event in page.events]):
                yield self._sent(chunk)
            self._position = page.covers
            self._join(buffer, page.head)
            if page.covers >= page.head.position and not self._is_in_buffer():
                self._feed.notify()
                await asyncio.sleep(LAG_SECONDS)

    def _join(self, buffer: FeedBuffer, head: FeedHead) -> None:
        if buffer.epoch == head.epoch and self._position >= buffer.low:
            self._buffer = buffer

    # Following.

    def _is_in_buffer(self) -> bool:
        buffer = self._feed.buffer
        return self._buffer is buffer and self._position >= buffer.low

    def _from_buffer(self) -> bytes | None:
        frames, self._position = self._feed.buffer.after(self.which, self._position)
        return self._sent(frames) if frames else None

    async def _idle(self) -> bytes:
        self._woken = self._loop.create_future()
        self._idle_since = self._loop.time()
        if self._heartbeat_timer is None:
            self._heartbeat_timer = self._loop.call_later(
                self._feed.settings.sse_heartbeat_seconds, self._check_heartbeat
            )
        self._feed.idle(self)
        try:
            woken = await self._woken
        finally:
            self._feed.not_idle(self)
            self._woken = None
        if woken:
            return b""
        if self._sent_position == self._position:
            return HEARTBEAT
        return b": heartbeat\nid: %s\n\n" % self._cursor()

    def _check_heartbeat(self) -> None:
        self._heartbeat_timer = None
        due = self._idle_since + self._feed.settings.sse_heartbeat_seconds
        if due <= self._loop.time():
            self._stop_waiting()
        elif self._woken is not None:
            self._heartbeat_timer = self._loop.call_at(due, self._check_heartbeat)

    def _stop_waiting(self) -> None:
        if self._woken is not None and not self._woken.done():
            if self._buffer is self._feed.buffer:
                # Advance to the end of the buffer now: it holds nothing that the client wants, or the client would have
                # been woken. Later would be too late: events that come then do not wake this client.
                self._position = max(self._position, self._feed.buffer.high)
            self._woken.set_result(False)

    def _expire(self) -> None:
        metrics.STREAM_CUTS.labels(self._end_reason).inc()
        self._ended.set_result(None)
        self._stop_waiting()

    def _sent(self, frames: list[Frame]) -> bytes:
        metrics.FRAMES_SENT.inc(len(frames))
        self._sent_position = frames[-1].position
        return b"".join([frame.encoded for frame in frames])

    def _cursor(self) -> bytes:
        self._sent_position = self._position
        return str(Cursor(self._epoch, self._position)).encode()

    async def _paced(self, parts: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        async with aclosing(parts):
            while not self._ended.done():
                part = asyncio.ensure_future(anext(parts, None))
                try:
                    while not part.done():
                        either: set[asyncio.Future[Any]] = {part, self._ended}
                        pause = self._feed.settings.sse_heartbeat_seconds
                        await asyncio.wait(either, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                        if self._ended.done():
                            return
                        if not part.done():
                            yield self._heartbeat
                finally:
                    if not part.done():
                        part.cancel()
                        await asyncio.wait({part})
                made = part.result()
                if made is None:
                    return
                yield made


def _chunks(frames: list[Frame]) -> list[list[Frame]]:
    chunks: list[list[Frame]] = []
    size = CHUNK_BYTES
    for frame in frames:
        if size >= CHUNK_BYTES:
            chunks.append([])
            size = 0
        chunks[-1].append(frame)
        size += len(frame.encoded)
    return chunks


def _owed(head: FeedHead) -> bytes:
    """Return the cursor that announces a snapshot: a client cut off before the end of it gets another one."""
    return str(Cursor(head.epoch, head.position, owed=True)).encode()


def _retry() -> bytes:
    return b"retry: %d\n\n" % random.randint(*RETRY_MILLISECONDS)
