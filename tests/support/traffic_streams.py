"""Many streams of the feed at once, in one thread, that tolerate no fault: each ends only as PROTOCOL says it may."""

import asyncio
import random
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.feed_follower import Message, Parser
from tests.support.waiting import eventually

SILENCE_SECONDS = 40.0
END_SECONDS = 30.0


class Stream:
    """Client that keeps its cursor, and reconnects, at the next address, only after a clean end with `retry:`."""

    def __init__(self, urls: Sequence[str], query: Mapping[str, Any]) -> None:
        self.events: list[Message] = []
        self.cursor = ""
        self.connections = 0
        self.faults: list[str] = []
        self._urls = urls
        self._query = dict(query)

    @property
    def position(self) -> int:
        """Return its position; -1 before its snapshot."""
        return int(self.cursor.rpartition(".")[2]) if self.cursor and "~" not in self.cursor else -1

    async def follow(self, http: httpx.AsyncClient) -> None:
        """Follow until cancelled."""
        while True:
            pause = 1000
            try:
                pause = await self._listen(http)
            except (httpx.HTTPError, AssertionError) as error:
                self.faults.append(repr(error))
            await asyncio.sleep(pause / 1000 * random.uniform(0.5, 1))

    async def _listen(self, http: httpx.AsyncClient) -> int:
        url = f"{self._urls[self.connections % len(self._urls)]}/sse/sessions"
        self.connections += 1
        headers = {"Last-Event-ID": self.cursor} if self.cursor else {}
        parser, last = Parser(), Message(None, "", "")
        async with http.stream("GET", url, params=self._query, headers=headers) as response:
            assert response.status_code == 200, response.status_code
            async for data in response.aiter_bytes():
                for last in parser.feed(data):
                    self._take(last)
        assert last.retry is not None, "a stream ended without a word"
        return last.retry

    def _take(self, message: Message) -> None:
        assert message.event != "reset", message
        if message.event not in {"", "init"}:
            self.events.append(message)
        if message.id is not None:
            self.cursor = message.id


class Streams:
    """``queries``: one stream each, spread over the addresses."""

    def __init__(self, urls: Sequence[str], queries: Sequence[Mapping[str, Any]]) -> None:
        turned = [[*urls[place % len(urls) :], *urls[: place % len(urls)]] for place in range(len(queries))]
        self.all = [Stream(order, query) for order, query in zip(turned, queries, strict=True)]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = asyncio.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="streams", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.until_at(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(END_SECONDS)
        if error is None and self._failure is not None:
            raise self._failure

    @property
    def faults(self) -> list[str]:
        """Return the faults of all streams."""
        return [fault for stream in self.all for fault in stream.faults]

    def until_at(self, position: int, within: float = END_SECONDS) -> None:
        """Wait until all have reached this position."""

        def there() -> bool:
            return self._failure is not None or all(stream.position >= position for stream in self.all)

        eventually(there, within, every=0.05, what=f"all streams at {position}")

    def _run(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as failure:  # noqa: BLE001 raised again in the test's own thread
            self._failure = failure

    async def _all(self) -> None:
        self._loop = asyncio.get_running_loop()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        async with httpx.AsyncClient(timeout=SILENCE_SECONDS, limits=limits, trust_env=False) as http:
            tasks = [asyncio.create_task(stream.follow(http)) for stream in self.all]
            await self._over.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
