from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from coordinator_client.errors import Refused, describe
from coordinator_client.feed import FeedItem
from coordinator_client.outcomes import insist
from coordinator_client.types import TERMINAL_STATUSES

if TYPE_CHECKING:
    from coordinator_client.client import CoordinatorClient

# Statuses of a session without an unfinished run.
QUIET: Final = frozenset({"idle", "finished", "failed", "stopped"})
TYPES: Final = ("event", "run_updated", "session_updated", "session_deleted")
PAGE: Final = 1000


class HistoryLost(Exception):
    """Raised when the coordinator cannot go on behind a position, since later events are not kept or it knows it not.

    Attributes:
        reason: As in `reset` of the feed, or the coordinator's text.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"events behind the position are not available: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason,)


async def follow_events(
    client: "CoordinatorClient", run_id: str | None, session_id: str | None, after: str | None
) -> AsyncGenerator[dict[str, Any], None]:
    if session_id is None:
        if run_id is None:
            raise TypeError("follow needs a run or a session")
        session_id = (await insist(partial(client.run, run_id)))["session_id"]
    followed = _Followed(client, session_id, run_id, after)
    # Each stream is closed before the next one is opened.
    for stream in (followed.numbered, followed.until_end, followed.rest):
        async with aclosing(stream()) as events:
            async for event in events:
                yield event


class _Followed:
    """Run or session that is followed, and the position up to which its events were given out.

    The stored events with a position are read first, then whether the end has come, then the feed from that position:
    an end that was not there at the look has a later position. What is stored behind the end is read last.
    """

    def __init__(self, client: "CoordinatorClient", session_id: str, run_id: str | None, after: str | None) -> None:
        self._client = client
        self._session_id = session_id
        self._run_id = run_id
        self._cursor = after

    async def numbered(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the stored events that have a position."""
        head = (await insist(partial(self._client.sessions, limit=1))).get("feed_cursor")
        async with aclosing(self._stored()) as events:
            async for event in events:
                if event["feed_cursor"] is None:
                    break
                self._cursor = event["feed_cursor"]
                yield event
        self._cursor = self._cursor or head

    async def until_end(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield later events as they come, until the end."""
        if await self._has_ended():
            return
        feed = self._client.feed(session_id=self._session_id, types=TYPES, after=self._cursor)
        async with aclosing(feed) as items:
            async for item in items:
                if item.event == "reset":
                    raise HistoryLost(str(item.data.get("reason")))
                self._cursor = item.id
                if item.event == "event" and self._is_wanted(item.data["data"]):
                    yield {**item.data["data"], "feed_cursor": item.id}
                elif self._is_end(item):
                    return

    async def rest(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield what is stored behind the end, with or without a position."""
        async with aclosing(self._stored()) as events:
            async for event in events:
                yield event

    async def _stored(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield what is stored behind the position. Events without a position are at the end of the last page."""
        after = self._cursor
        while True:
            read = partial(self._client.session_events, self._session_id, run_id=self._run_id, after=after, limit=PAGE)
            try:
                page = await insist(read)
            except Refused as refused:
                if refused.status == 400 and after is not None:
                    raise HistoryLost(describe(refused.detail)) from None
                raise
            for event in page:
                cursor = event.get("feed_cursor")
                yield {**{name: value for name, value in event.items() if name != "id"}, "feed_cursor": cursor}
            if not page or (after := page[-1].get("feed_cursor")) is None:
                return

    async def _has_ended(self) -> bool:
        if self._run_id is not None:
            return (await insist(partial(self._client.run, self._run_id)))["status"] in TERMINAL_STATUSES
        return (await insist(partial(self._client.session, self._session_id)))["status"] in QUIET

    def _is_wanted(self, event: dict[str, Any]) -> bool:
        return self._run_id is None or event.get("run_id") == self._run_id

    def _is_end(self, item: FeedItem) -> bool:
        match item.event:
            case "session_deleted":
                return True
            case "run_updated":
                run = item.data["run"]
                return run["run_id"] == self._run_id and run["status"] in TERMINAL_STATUSES
            case "session_updated":
                return self._run_id is None and item.data["session"]["status"] in QUIET
            case _:
                return False
