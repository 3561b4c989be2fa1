"""Readers of the feed against real web processes: one complete history each, whatever happens to connections."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import pytest
from httpcore import AsyncHTTP11Connection

from coordinator_client.client import CoordinatorClient
from coordinator_client.errors import Refused, Unreachable
from coordinator_client.feed import FeedItem
from runtime.settings import Settings
from testkit.cluster import Cluster
from testkit.feed_follower import sent_data
from testkit.ports import own_port
from testkit.waiting import eventually_async
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebClient, WebInThread, served, until_ready
from tests.support.web_proxy import WebProxy, web_proxy

ALL = ("session_created", "session_updated", "session_deleted", "event", "run_failed", "run_updated")
THE_END = "the end"
TEXT = "a\u2028b\u2029c\u0085d\u000b\u001c ü 😀 \ud800"
Told = tuple[str, str, object]


@pytest.fixture
def web(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebInThread]:
    """Start a web process with short reconnect times and frequent heartbeats."""
    monkeypatch.setattr("app.feed.stream.RETRY_MILLISECONDS", (1, 20))
    with served(settings.model_copy(update={"sse_heartbeat_seconds": 0.1})) as instance:
        until_ready(instance)
        yield instance


@pytest.fixture
def other_web(settings: Settings, web: WebInThread) -> Iterator[WebInThread]:
    """Start a second instance on the same database."""
    with served(settings) as instance:
        until_ready(instance)
        yield instance


@asynccontextmanager
async def followed(
    urls: str | list[str], **wanted: object
) -> AsyncIterator[tuple[AsyncGenerator[FeedItem, None], CoordinatorClient]]:
    """Open a client's feed and close it with the block."""
    async with (
        CoordinatorClient(urls) as client,
        aclosing(client.feed(**wanted)) as items,  # type: ignore[arg-type] # as each test names them
    ):
        yield items, client


@asynccontextmanager
async def reading(items: AsyncIterator[FeedItem]) -> AsyncIterator["asyncio.Task[list[Told]]"]:
    """Read in the background up to the end that the test writes."""
    task = asyncio.create_task(until_the_end(items))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def say(client: WebClient, session_id: str, event_type: str = "message", content: str = TEXT) -> None:
    """Write one event of the session."""
    event = {"event_type": event_type, "session_id": session_id, "timestamp": "now", "content": content}
    response = client.post(f"/sessions/{session_id}/events", event)
    assert response.status_code == 201, response.text


def talk(client: WebClient, events: int, seed: int) -> None:
    """Write this many events in three sessions, some long, and submit and stop runs between them."""
    dice = random.Random(seed)
    sessions = [client.submit()["session_id"] for _ in range(3)]
    for _ in range(events):
        say(client, dice.choice(sessions), content=TEXT * dice.choice([0, 1, 1, 1, 30]))
        if dice.random() < 0.1:
            client.post(f"/sessions/{client.submit()['session_id']}/stop")


async def until_the_end(items: AsyncIterator[FeedItem]) -> list[Told]:
    """Return all items up to the last event that a test writes."""
    told: list[Told] = []
    async with asyncio.timeout(60):
        async for item in items:
            told.append((item.id, item.event, item.data))
            if item.event == "event" and item.data["data"]["event_type"] == THE_END:
                return told
    raise AssertionError("the feed has ended")


def history(db: DbVerbs, after: str) -> list[Told]:
    """Return what the database holds behind the cursor, in the form of the feed."""
    prefix, _, position = after.rpartition(".")
    rows = db.rows(
        "SELECT feed_pos, kind, run_id, CAST(frame AS text) AS frame FROM events WHERE feed_pos > :after "
        "ORDER BY feed_pos",
        after=int(position),
    )
    return [(f"{prefix}.{row.feed_pos}", row.kind, json.loads(sent_data(row))) for row in rows]


def now(client: WebClient) -> str:
    """Return the feed's current cursor."""
    return str(client.get("/sessions").headers["feed-cursor"])


@pytest.mark.parametrize("seed", range(2))
async def test_reader_cut_at_any_byte_sees_each_event_once(
    web: WebInThread, other_web: WebInThread, db: DbVerbs, seed: int
) -> None:
    """Cut in the head of an answer, in a frame, within a character and between frames. Go on at the other instance."""
    dice = random.Random(seed)
    start = now(web.client)

    def somewhere() -> int:
        return dice.choice([dice.randint(0, 600), dice.randint(300, 6000)])

    async with (
        web_proxy(web.client.url, somewhere) as first,
        web_proxy(other_web.client.url, somewhere) as second,
        followed([first.url, second.url], after=start, types=ALL) as (items, _),
        reading(items) as told,
    ):
        writers = (
            partial(talk, instance.client, 30, seed * 2 + place) for place, instance in enumerate((web, other_web))
        )
        await asyncio.gather(*(asyncio.to_thread(writer) for writer in writers))
        say(web.client, web.client.submit()["session_id"], THE_END)
        assert await told == history(db, start)
        assert min(first.cuts, second.cuts) > 5


@pytest.mark.parametrize("death", ["kill", "drain"])
async def test_reader_moves_on_when_its_replica_goes(cluster: Cluster, db: DbVerbs, death: str) -> None:
    """Kill or drain it while others write: nothing is missed or doubled; only a kill is a lost connection."""
    (first, second), _ = cluster.start_processes(webs=2, workers=1, drain_seconds=0.5)
    causes: list[tuple[str, str | None]] = []
    elsewhere = WebClient(second.url)
    start = now(elsewhere)
    read: list[FeedItem] = []

    def note(url: str, cause: str | None) -> None:
        causes.append((url, cause))

    async def noted(items: AsyncIterator[FeedItem]) -> AsyncIterator[FeedItem]:
        async for item in items:
            read.append(item)
            yield item

    async def has_read(number: int) -> bool:
        return len(read) >= number

    async with (
        followed([first.url, second.url], after=start, types=ALL, on_connection=note) as (items, _),
        reading(noted(items)) as told,
    ):
        await asyncio.to_thread(talk, elsewhere, 20, 1)
        await eventually_async(partial(has_read, 20))
        writing = asyncio.create_task(asyncio.to_thread(talk, elsewhere, 100, 2))
        first.kill() if death == "kill" else first.terminate()
        await writing
        say(elsewhere, elsewhere.submit()["session_id"], THE_END)
        assert await told == history(db, start)
    assert (causes[0], causes[-1]) == ((first.url, None), (second.url, None))
    assert any(cause for _, cause in causes) == (death == "kill")
    elsewhere.close()


async def test_reader_may_start_with_snapshot(web: WebInThread) -> None:
    """Follow with what happened after the snapshot."""
    session_id = web.client.submit()["session_id"]
    async with followed(web.client.url, init=True) as (items, _):
        init = await anext(items)
        assert (init.event, [session["session_id"] for session in init.data["sessions"]]) == ("init", [session_id])
        say(web.client, session_id, THE_END)
        told = await until_the_end(items)
    assert init.id not in {cursor for cursor, _, _ in told}


async def test_unusable_cursor_is_reported_and_followed_by_snapshot(web: WebInThread) -> None:
    """Send it to a reader that asked for none too; it resumes behind it."""
    session_id = web.client.submit()["session_id"]
    async with followed(web.client.url, after="v1.elsewhere.7") as (items, client):
        reset, init = await anext(items), await anext(items)
        assert (reset.event, reset.data) == ("reset", {"reason": "epoch"})
        assert (init.event, len(init.data["sessions"])) == ("init", 1)
        say(web.client, session_id, THE_END)
        async with aclosing(client.feed(after=init.id)) as again:
            assert (await until_the_end(again))[-1] == (await until_the_end(items))[-1]


@pytest.mark.parametrize("behind", [b'"reason":"malformed"}\n\n', b'"session_id"'], ids=["reset", "half an init"])
async def test_reader_cut_before_its_snapshot_gets_it_from_next_instance(
    web: WebInThread, other_web: WebInThread, behind: bytes
) -> None:
    """Keep the owed snapshot in the cursor."""
    session_ids = [web.client.submit()["session_id"] for _ in range(3)]
    async with (
        web_proxy(web.client.url) as first,
        web_proxy(other_web.client.url) as second,
        followed([first.url, second.url], after="junk") as (items, _),
    ):
        first.cut_behind = behind
        reset, init = await anext(items), await anext(items)
        assert first.last_event_ids() == ["junk"]
        assert second.last_event_ids() == [reset.id]
    assert (reset.event, reset.data) == ("reset", {"reason": "malformed"})
    assert (init.event, {session["session_id"] for session in init.data["sessions"]}) == ("init", set(session_ids))


async def test_cursor_moves_on_without_matching_events(web: WebInThread) -> None:
    """Resume from ids that come alone; they are no items."""
    followed_id, busy = (web.client.submit()["session_id"] for _ in range(2))
    async with (
        web_proxy(web.client.url) as proxy,
        followed(proxy.url, session_id=followed_id, types=["event"]) as (items, _),
        reading(items) as told,
    ):
        await eventually_async(partial(connected, proxy))
        say(web.client, busy)
        passed = await eventually_async(partial(numbered, web.client, busy))
        await eventually_async(partial(has_said, proxy, f"id: {passed}\n"))
        proxy.cut()
        await eventually_async(partial(has_resumed_behind, proxy, passed))
        say(web.client, followed_id, THE_END)
        assert [event for _, event, _ in await told] == ["event"]


async def connected(proxy: WebProxy) -> bool:
    return proxy.open > 0


async def left(proxy: WebProxy) -> bool:
    return proxy.opened > 0 and proxy.open == 0


async def numbered(client: WebClient, session_id: str) -> str:
    """Return the cursor of the session's newest event once it has one."""
    events = client.get(f"/sessions/{session_id}/events").json()["events"]
    return str(events[-1]["feed_cursor"] or "")


async def has_said(proxy: WebProxy, text: str) -> bool:
    return text.encode() in proxy.said


async def has_resumed_behind(proxy: WebProxy, cursor: str) -> bool:
    return cursor in proxy.last_event_ids()


async def test_silent_connection_is_replaced(web: WebInThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expect heartbeats on an idle connection; without them it is dead, whatever the network believes."""
    monkeypatch.setattr("coordinator_client.feed.SILENCE_SECONDS", 1.0)
    session_id = web.client.submit()["session_id"]
    causes: list[str | None] = []

    async def has_been_lost() -> bool:
        return causes[-1:] == ["no answer in time"]

    async with (
        web_proxy(web.client.url) as proxy,
        followed(proxy.url, after=now(web.client), on_connection=lambda _, cause: causes.append(cause)) as (items, _),
        reading(items) as told,
    ):
        await eventually_async(partial(connected, proxy))
        proxy.freeze()
        await eventually_async(has_been_lost)
        proxy.flowing.set()
        say(web.client, session_id, THE_END)
        await told


async def test_reader_that_leaves_closes_its_connection(web: WebInThread) -> None:
    """Leave the block, or cancel its task."""
    session_id = web.client.submit()["session_id"]
    async with web_proxy(web.client.url) as proxy, CoordinatorClient(proxy.url) as client:
        async with aclosing(client.feed(after=now(web.client))) as items:
            say(web.client, session_id)
            async for _ in items:
                break
            assert proxy.open == 1
        await eventually_async(partial(left, proxy))
        async with reading(client.feed()):
            await eventually_async(partial(connected, proxy))
        await eventually_async(partial(left, proxy))


async def test_reader_cancelled_while_connecting_leaves_nothing_open(
    web: WebInThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Close the connection, which the HTTP client alone would keep for its lifetime."""
    made = AsyncHTTP11Connection.__init__

    def cancelled_when_made(self: AsyncHTTP11Connection, *args: Any, **values: Any) -> None:
        made(self, *args, **values)
        reader.cancel()

    monkeypatch.setattr(AsyncHTTP11Connection, "__init__", cancelled_when_made)
    async with web_proxy(web.client.url) as proxy, CoordinatorClient(proxy.url) as client:
        reader = asyncio.create_task(until_the_end(client.feed()))
        await asyncio.wait({reader})
        assert reader.cancelled()
        await eventually_async(partial(left, proxy))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 X\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 502 X\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 429 X\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 408 X\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 302 X\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 X\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 204 X\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"",
    ],
    ids=["503", "502", "429", "408", "302", "page", "204", "nonsense", "closed"],
)
async def test_reader_retries_until_stream_opens(web: WebInThread, answer: bytes) -> None:
    """Retry after transient answers, answers of another server and none at all."""
    session_id = web.client.submit()["session_id"]
    causes: list[str | None] = []

    async def has_failed_often() -> bool:
        return len(causes) >= 3

    async with (
        web_proxy(web.client.url) as proxy,
        followed(proxy.url, on_connection=lambda _, cause: causes.append(cause), after=now(web.client)) as (items, _),
    ):
        proxy.answer, proxy.away = answer, not answer
        async with reading(items) as told:
            await eventually_async(has_failed_often)
            assert all(causes)
            proxy.answer, proxy.away = b"", False
            say(web.client, session_id, THE_END)
            await told


async def test_permanent_error_is_raised(web: WebInThread) -> None:
    """Stop: another try or address would change nothing."""
    async with followed(web.client.url, types=["nonsense"]) as (items, _):
        with pytest.raises(Refused) as caught:
            await anext(items)
    assert caught.value.status == 422


async def test_retries_end_with_failures_of_each_address() -> None:
    """Limit the time, as callers may."""
    closed = [f"http://127.0.0.1:{own_port()}" for _ in range(2)]
    async with followed(closed, patience_seconds=0.5) as (items, _):
        with pytest.raises(Unreachable) as caught:
            await anext(items)
    assert set(caught.value.causes) == set(closed)
