from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from app.http.serializers import frame_with_run
from models.feed.pages import FeedEvent, FeedFilter
from models.state.cursors import write_cursor

# Send a client up to this many bytes at once, or one frame that is larger.
CHUNK_BYTES: Final = 64 * 1024

Topic: TypeAlias = tuple[str, str]
ALL: Final[Topic] = ("", "")


@dataclass(frozen=True, slots=True)
class Frame:
    """Event as every client gets it; ``encoded`` is the whole message, from ``id:`` to the blank line."""

    event: FeedEvent
    encoded: bytes

    @property
    def position(self) -> int:
        return self.event.position

    def topics(self) -> Iterator[Topic]:
        yield ALL
        yield "session", self.event.session_id
        if self.event.run_id is not None:
            yield "run", self.event.run_id
        if self.event.owner is not None:
            yield "owner", self.event.owner

    def passes(self, which: FeedFilter) -> bool:
        event = self.event
        return which.passes(event.kind, event.session_id, event.run_id, event.owner)


def encode_frame(epoch: str, event: FeedEvent) -> Frame:
    """Return the event as a message of the stream.

    Line breaks are replaced by blanks: in JSON they stand between tokens only.
    """
    frame = frame_with_run(event.frame, event.run_id) if event.kind == "event" else event.frame
    data = frame.replace("\n", " ").replace("\r", " ")
    cursor = write_cursor(epoch, event.position)
    return Frame(event, f"id: {cursor}\nevent: {event.kind}\ndata: {data}\n\n".encode())


def topic_of(which: FeedFilter) -> Topic:
    if which.run_id is not None:
        return "run", which.run_id
    if which.session_id is not None:
        return "session", which.session_id
    if which.owner is not None:
        return "owner", which.owner
    return ALL


class FeedBuffer:
    """Events behind ``low`` up to ``high`` of one epoch; bounded in number and bytes by dropping the oldest."""

    def __init__(self, epoch: str, position: int, *, most_frames: int, most_bytes: int) -> None:
        self.epoch = epoch
        self.low = position
        self.high = position
        self._most_frames = most_frames
        self._most_bytes = most_bytes
        self._bytes = 0
        self._frames: dict[Topic, deque[Frame]] = {ALL: deque()}

    def append(self, frames: Iterable[Frame], covers: int) -> None:
        """Add the frames of the next events; ``covers`` is the position up to which there is nothing else."""
        for frame in frames:
            self._bytes += len(frame.encoded)
            for topic in frame.topics():
                self._frames.setdefault(topic, deque()).append(frame)
        self.high = covers
        newest = self._frames[ALL]
        while len(newest) > self._most_frames or (self._bytes > self._most_bytes and len(newest) > 1):
            self._drop_oldest()

    def after(self, which: FeedFilter, position: int) -> tuple[list[Frame], int]:
        """Return about one chunk of what the filter passes behind the position, and the position that it reaches."""
        frames = self._frames.get(topic_of(which), ())
        taken: list[Frame] = []
        size = 0
        for index in range(bisect_right(frames, position, key=_position), len(frames)):
            frame = frames[index]
            if frame.passes(which):
                taken.append(frame)
                size += len(frame.encoded)
                if size >= CHUNK_BYTES:
                    return taken, frame.position
        return taken, max(position, self.high)

    def _drop_oldest(self) -> None:
        oldest = self._frames[ALL][0]
        self._bytes -= len(oldest.encoded)
        self.low = oldest.position
        for topic in oldest.topics():
            frames = self._frames[topic]
            frames.popleft()
            if not frames and topic != ALL:
                del self._frames[topic]


def _position(frame: Frame) -> int:
    return frame.position
