import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from itertools import cycle
from time import monotonic
from typing import Any, TypeAlias

from httpx_sse import ServerSentEvent

from coordinator_client.backoff import Backoff
from coordinator_client.errors import Refused, Unreachable
from coordinator_client.transport import Transport

# The coordinator sends a frame at least every 30 s: a connection that is silent for longer is dead.
SILENCE_SECONDS = 40.0

# Called with an address and the reason for which it gave no stream, or None when it gave one.
OnConnection: TypeAlias = Callable[[str, str | None], None]


@dataclass(frozen=True, slots=True)
class FeedItem:
    """Item of the feed (PROTOCOL, Feed). Reading after `id` goes on exactly behind it, on any instance.

    `event` names the kind of `data`. A `reset` says that history was skipped (`data["reason"]`) and precedes an `init`;
    an `init` replaces everything that the reader has built up. Resuming from the `id` of a `reset` gives that `init`
    again.
    """

    id: str
    event: str
    data: dict[str, Any]


class Feed:
    """Reader of the feed at one position; use `items` once.

    The position is the id of the last complete frame, also of one without data. An incomplete frame of a broken
    connection is dropped, and the next connection begins behind that id.
    """

    def __init__(
        self,
        transport: Transport,
        query: Mapping[str, Any],
        *,
        after: str | None = None,
        patience_seconds: float | None = None,
        on_connection: OnConnection | None = None,
    ) -> None:
        if after and not (after.isascii() and after.isprintable()):
            raise ValueError(f"not a cursor of the feed: {after!r}")
        self._transport = transport
        self._query = query
        self._cursor = after or ""
        self._patience = patience_seconds
        self._on_connection = on_connection
        start = transport.urls.index(transport.url)
        self._addresses = cycle(transport.urls[start:] + transport.urls[:start])
        self._backoff = Backoff()
        # Pauses that the coordinator asked for, in seconds: on the stream (jittered by the coordinator), and in error
        # responses.
        self._retry = 0.0
        self._retry_after = 0.0
        self._has_stream = False
        # Start of the time without a stream, number of addresses that failed in it, and their reasons.
        self._without_since = monotonic()
        self._failures = 0
        self._causes: dict[str, str] = {}

    async def items(self) -> AsyncGenerator[FeedItem, None]:
        """Yield every item behind the position, each once and in order, without an end."""
        self._without_since = monotonic()
        while True:
            url = next(self._addresses)
            headers = {"Last-Event-ID": self._cursor} if self._cursor else {}
            try:
                async with self._transport.stream(
                    url, "/sse/sessions", query=self._query, headers=headers, silence_seconds=SILENCE_SECONDS
                ) as frames:
                    self._has_stream = True
                    self._tell(url, None)
                    async for frame in frames:
                        if (item := self._take(frame)) is not None:
                            yield item
            except Refused as refused:
                if not refused.is_transient and refused.status != 408:
                    raise
                self._retry_after = max(self._retry_after, refused.retry_after or 0.0)
                self._failed(url, str(refused))
            except Unreachable as unreachable:
                self._retry_after = max(self._retry_after, unreachable.retry_after or 0.0)
                self._failed(url, unreachable.causes[url])
            await self._rest()

    def _take(self, frame: ServerSentEvent) -> FeedItem | None:
        if frame.retry is not None:
            self._retry = max(0, frame.retry) / 1000
        if frame.id:
            self._cursor = frame.id
            self._backoff.reset()
        return FeedItem(self._cursor, frame.event, json.loads(frame.data)) if frame.data else None

    async def _rest(self) -> None:
        if self._has_stream:
            self._has_stream = False
            self._without_since = monotonic()
            self._failures = 0
            self._causes.clear()
        else:
            self._failures += 1
            if self._failures % len(self._transport.urls):
                return
        pause = self._backoff.pause(max(self._retry, self._retry_after))
        self._retry_after = 0.0
        waited = monotonic() - self._without_since
        if self._failures and self._patience is not None and waited + pause > self._patience:
            raise Unreachable(self._causes)
        await asyncio.sleep(pause)

    def _failed(self, url: str, cause: str) -> None:
        self._causes[url] = cause
        self._tell(url, cause)

    def _tell(self, url: str, cause: str | None) -> None:
        if self._on_connection is not None:
            self._on_connection(url, cause)
