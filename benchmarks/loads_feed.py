import asyncio
from array import array
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter

import orjson

from benchmarks.loads_runs import new_run
from benchmarks.meter import Meter, percentile
from benchmarks.wire import Connection, Stream, connect, connect_stream, request

MARK = b"beat-"
DIGITS = 8
POSTERS = 4
# Wait so long for deliveries after the last event.
LATE_SECONDS = 5


class Arrivals:
    """Record of the events that clients got: `sent_at` by number, and the seconds of each delivery."""

    def __init__(self) -> None:
        self.sent_at: dict[int, float] = {}
        # An array: millions of deliveries would be as many objects.
        self.delays = array("d")
        self._awaited = 0
        self._complete = asyncio.Event()

    def took(self, delay: float) -> None:
        self.delays.append(delay)
        if len(self.delays) >= self._awaited:
            self._complete.set()

    async def complete(self, count: int) -> None:
        self._awaited = count
        self._complete.clear()
        if len(self.delays) < count:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._complete.wait(), LATE_SECONDS)


class Audience(Arrivals):
    def __init__(self) -> None:
        super().__init__()
        self.streams: list[Stream] = []

    async def gather(self, url: str, size: int) -> None:
        for first in range(0, size, 50):
            streams = [await connect_stream(url, self._frame) for _ in range(min(50, size - first))]
            for stream in streams:
                stream.follow("/sse/sessions?include_init=false&types=event")
            await asyncio.gather(*(stream.began for stream in streams))
            self.streams += streams

    def _frame(self, frame: bytes) -> None:
        place = frame.find(MARK)
        if place >= 0:
            first = place + len(MARK)
            self.took(perf_counter() - self.sent_at[int(frame[first : first + DIGITS])])

    def leave(self) -> None:
        for stream in self.streams:
            stream.close()


async def event_to_client(urls: list[str], *, seconds: float, clients: int, rate: float) -> dict[str, float]:
    """Post events to the first replica at `rate` a second, with `clients` that follow at the last one.

    The time is from just before a POST is sent to the arrival of its frame at each client. `lost` counts frames that
    had not come 5 s after the last POST.
    """
    audience = Audience()
    connections = [await connect(urls[0]) for _ in range(POSTERS)]
    session_id = orjson.loads(await connections[0].expect(201, request("POST", "/runs", new_run())))["session_id"]
    await audience.gather(urls[-1], clients)
    await post_events(audience.sent_at, connections, session_id, rate, range(int(rate)))
    await audience.complete(int(rate) * clients)
    del audience.delays[:]
    meter = Meter()
    meter.begin()
    numbers = range(int(rate), int(rate * (seconds + 1)))
    await post_events(audience.sent_at, connections, session_id, rate, numbers)
    meter.end()
    expected = len(numbers) * clients
    await audience.complete(expected)
    audience.leave()
    return delivered(audience.delays, expected, seconds)


def delivered(delays: Sequence[float], expected: int, seconds: float) -> dict[str, float]:
    if not delays:
        raise ValueError("nothing was delivered within the window")
    ordered = sorted(delays)
    return {
        "rate": len(ordered) / seconds,
        "count": len(ordered),
        "lost": expected - len(ordered),
        "p50": 1000 * percentile(ordered, 50),
        "p99": 1000 * percentile(ordered, 99),
        "max": 1000 * ordered[-1],
    }


async def post_events(
    sent_at: dict[int, float], connections: list[Connection], session_id: str, rate: float, numbers: range
) -> None:
    """Post the events at their times, by several connections in turn, so that a slow answer delays no other event.

    Puts the time (perf_counter) of each into `sent_at`, just before it is written.
    """
    began = perf_counter()

    async def poster(connection: Connection, share: range) -> None:
        for number in share:
            await asyncio.sleep(max(0.0, began + (number - numbers.start) / rate - perf_counter()))
            event = {
                "event_type": "message",
                "session_id": session_id,
                "timestamp": "2026-01-01T00:00:00+00:00",
                "role": "assistant",
                "content": f"{MARK.decode()}{number:0{DIGITS}}",
            }
            content = request("POST", f"/sessions/{session_id}/events", event)
            sent_at[number] = perf_counter()
            await connection.expect(201, content)

    async with asyncio.TaskGroup() as tasks:
        for place, connection in enumerate(connections):
            tasks.create_task(poster(connection, numbers[place :: len(connections)]))
    await asyncio.sleep(max(0.0, began + len(numbers) / rate - perf_counter()))
