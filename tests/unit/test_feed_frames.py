"""Check how the feed client parses a stream's bytes, wherever chunks end."""

import json
import random
from collections.abc import AsyncIterator, Sequence
from functools import cache

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent

from coordinator_client.feed import Feed, FeedItem
from coordinator_client.transport import Transport

TEXT = "a\u2028b\u2029c\u0085d ü 😀"

# Frames, each with the id that it carries, or None.
FRAMES: list[tuple[str, str | None]] = [
    ("retry: 1500\nid: v1.1f00.7", "v1.1f00.7"),
    (": heartbeat", None),
    ('id: v1.1f00.8\nevent: event\ndata: {"data": {"content": "' + TEXT + '"}}', "v1.1f00.8"),
    ("id: v1.1f00.12", "v1.1f00.12"),
    ('id: v1.1f00.13\nevent: session_updated\ndata: {"session":\ndata: {"session_id": "s"}}', "v1.1f00.13"),
    ('id: v1.1f00~init.20\nevent: reset\ndata: {"reason": "expired"}', "v1.1f00~init.20"),
    ('id: v1.1f00.20\nevent: init\ndata: {"sessions": []}', "v1.1f00.20"),
]


@cache
def unused_transport() -> Transport:
    """Return a transport that is never used; one for all, since making its TLS context takes 0.1 s."""
    return Transport(["http://127.0.0.1:9"])


def feed_of_nowhere() -> Feed:
    return Feed(unused_transport(), {})


async def parsed(chunks: Sequence[bytes]) -> list[ServerSentEvent]:
    """Return the result of the parser for a body that arrives in these chunks."""

    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=body())
    return [frame async for frame in EventSource(response).aiter_sse()]


async def read(chunks: Sequence[bytes]) -> tuple[list[FeedItem], str]:
    """Return the items and the cursor after them."""
    feed = feed_of_nowhere()
    taken = [feed._take(frame) for frame in await parsed(chunks)]
    return [item for item in taken if item is not None], feed._cursor


def expected(frames: Sequence[tuple[str, str | None]]) -> tuple[list[FeedItem], str]:
    items, place = [], ""
    for text, cursor in frames:
        place = cursor or place
        data = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
        if data:
            (event,) = [line.removeprefix("event: ") for line in text.split("\n") if line.startswith("event: ")]
            items.append(FeedItem(place, event, json.loads("\n".join(data))))
    return items, place


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
async def test_truncated_frame_is_neither_shown_nor_skipped(newline: str) -> None:
    """Cut at every byte, also inside a character: only complete frames count, for items and for the cursor."""
    whole = [f"{text}\n\n".replace("\n", newline).encode() for text, _ in FRAMES]
    stream = b"".join(whole)
    ends = [len(b"".join(whole[: number + 1])) for number in range(len(whole))]
    # A carriage return ends a line by itself: the frame is complete.
    complete_from = [end - (newline == "\r\n") for end in ends]
    for cut in range(len(stream) + 1):
        arrived = FRAMES[: sum(end <= cut for end in complete_from)]
        assert await read([stream[:cut]]) == expected(arrived), stream[:cut][-40:]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
async def test_chunking_does_not_change_the_result(newline: str, seed: int) -> None:
    """Try chunks of one to nine bytes."""
    dice = random.Random(seed)
    stream = "".join(f"{text}\n\n".replace("\n", newline) for text, _ in FRAMES).encode()
    chunks = []
    while stream:
        size = dice.randint(1, 9)
        chunks.append(stream[:size])
        stream = stream[size:]
    assert await read(chunks) == expected(FRAMES)


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
async def test_only_newlines_end_line(sign: str) -> None:
    """Text may hold other characters that Python counts as line ends."""
    (frame,) = await parsed([f"id: 1\ndata: a{sign}data: b{sign}\n\n".encode()])
    assert frame.data == f"a{sign}data: b{sign}"


async def test_comments_and_bare_ids_are_no_items() -> None:
    """A heartbeat leaves the cursor unchanged; an id alone moves it."""
    assert await read([b": still here\n\n"]) == ([], "")
    assert await read([b"id: v1.a.1\n\n: still here\n\n"]) == ([], "v1.a.1")
    assert await read([b"id: v1.a.1\n\nid: v1.a.9\n\n"]) == ([], "v1.a.9")
    assert await read([b"id: v1.a.1\n\nid: v1.a.9\n"]) == ([], "v1.a.1")


@pytest.mark.parametrize(
    ("line", "seconds"), [("retry: 2500", 2.5), ("retry: 0", 0), ("retry: -5", 0), ("retry: soon", 0), ("retry:", 0)]
)
async def test_retry_pause_is_kept(line: str, seconds: float) -> None:
    """Read milliseconds; ignore invalid values."""
    feed = feed_of_nowhere()
    for frame in await parsed([f"{line}\n\n".encode()]):
        assert feed._take(frame) is None
    assert feed._retry == seconds


@pytest.mark.parametrize("after", ["a\nb", "ü", "a\r\nX: y"])
def test_unsendable_cursor_is_refused_at_once(after: str) -> None:
    """Leave every other cursor to the coordinator."""
    with pytest.raises(ValueError, match="cursor"):
        Feed(Transport(["http://127.0.0.1:9"]), {}, after=after)
