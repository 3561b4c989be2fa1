import asyncio
from array import array
from functools import partial
from time import perf_counter
from typing import Final, cast

import orjson

from benchmarks.loads_feed import DIGITS, MARK, POSTERS, Arrivals, delivered, post_events
from benchmarks.loads_runs import new_run
from benchmarks.meter import Meter
from benchmarks.wire import Unexpected, address, connect, request

PATH: Final = "/sse/sessions?include_init=false&types=event"
# Streams that are opened at once.
TOGETHER: Final = 100
_PIECES: Final = 1000

# Position of each frame with a cursor in a piece, and the number of its event if it has one; and the rest of the piece:
# the beginning of the next frame.
Piece = tuple[tuple[tuple[int, int | None], ...], bytes]


class Crowd(Arrivals):
    """Many streams with one record. A piece that many of them get is parsed once: all get the same bytes.

    While ``counting``, `delays` has the seconds of each event from its POST, and `gaps` counts the events whose
    position does not follow the one before it on the same stream.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gaps = 0
        self.counting = False
        self.members: list[Member] = []
        self._pieces: dict[bytes, Piece] = {}

    async def gather(self, urls: list[str], size: int) -> None:
        loop = asyncio.get_running_loop()
        for first in range(0, size, TOGETHER):
            joining = [Member(self, loop.create_future()) for _ in range(min(TOGETHER, size - first))]
            for number, member in enumerate(joining, first):
                await loop.create_connection(partial(_same, member), *address(urls[number % len(urls)]))
            await asyncio.gather(*(member.began for member in joining))
            self.members += joining

    def piece(self, data: bytes) -> Piece:
        found = self._pieces.get(data)
        if found is None:
            if len(self._pieces) >= _PIECES:
                self._pieces.clear()
            found = self._pieces[data] = parse_piece(data)
        return found


class Member(asyncio.Protocol):
    __slots__ = ("_crowd", "_opened", "_position", "_rest", "_transport", "began")

    def __init__(self, crowd: Crowd, began: "asyncio.Future[None]") -> None:
        self._crowd = crowd
        self.began = began
        self._opened = False
        self._position = 0
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(request("GET", PATH))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.began.done():
            self.began.set_exception(Unexpected(f"a stream was lost: {exc}"))

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        if not self._opened:
            self._rest = self._open(data)
            return
        frames, self._rest = self._crowd.piece(data)
        now, crowd = perf_counter(), self._crowd
        for position, number in frames:
            if crowd.counting and position != self._position + 1:
                crowd.gaps += 1
            self._position = position
            if number is not None:
                crowd.took(now - crowd.sent_at[number])
            elif not self.began.done():
                self.began.set_result(None)

    def close(self) -> None:
        self._transport.close()

    def _open(self, data: bytes) -> bytes:
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            return data
        self._opened = True
        if not head.startswith(b"HTTP/1.1 200 "):
            self.began.set_exception(Unexpected(f"{head[:40]!r} to a stream"))
        return rest


def parse_piece(data: bytes) -> Piece:
    """Find the frames with a cursor in a piece of a stream that begins where a frame ended. Chunks of the transfer
    encoding end where frames end; their lengths stand between frames and are skipped.
    """
    *frames, rest = data.split(b"\n\n")
    found: list[tuple[int, int | None]] = []
    for frame in frames:
        _, cursor, fields = frame.partition(b"id: ")
        if cursor:
            position = int(fields.partition(b"\n")[0].rpartition(b".")[2])
            _, mark, number = fields.partition(MARK)
            found.append((position, int(number[:DIGITS]) if mark else None))
    return tuple(found), b"" if rest == b"\r\n" else rest


def _same(member: Member) -> Member:
    return member


async def event_to_crowd(urls: list[str], *, seconds: float, clients: int, rate: float) -> dict[str, float]:
    """Post events to the first replica at `rate` a second, with `clients` that follow at all of them in turn.

    Figures are those of `event-to-client`, and `gaps` as of Crowd. One second of events comes before, uncounted.
    """
    crowd = Crowd()
    connections = [await connect(urls[0]) for _ in range(POSTERS)]
    await crowd.gather(urls, clients)
    session_id = orjson.loads(await connections[0].expect(201, request("POST", "/runs", new_run())))["session_id"]
    first = range(int(rate))
    await post_events(crowd.sent_at, connections, session_id, rate, first)
    await crowd.complete(len(first) * clients)
    if len(crowd.delays) != len(first) * clients:
        raise Unexpected(f"only {len(crowd.delays)} of {len(first) * clients} first events came")
    crowd.delays, crowd.counting = array("d"), True
    meter = Meter()
    meter.begin()
    numbers = range(len(first), int(rate * (seconds + 1)))
    await post_events(crowd.sent_at, connections, session_id, rate, numbers)
    meter.end()
    await crowd.complete(len(numbers) * clients)
    for member in crowd.members:
        member.close()
    return {**delivered(crowd.delays, len(numbers) * clients, seconds), "gaps": crowd.gaps}
