"""Check what happens to a stream within one iteration of the event loop, before its own task runs."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from http.client import IncompleteRead
from typing import Any

import pytest
from sqlalchemy import text

from app.feed.stream import Stream
from models.feed.pages import read_feed
from models.feed.sequence import sequence_feed
from runtime.settings import Settings
from testkit.feed_follower import Connection, ledger, open_stream, seen_events
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebInThread, served, until_ready

# Timers never fire and nothing is numbered: the test decides the order.
STILL = {"feed_poll_seconds": 1000, "sse_heartbeat_seconds": 30, "fast_paths": False}


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings.model_copy(update=STILL)) as web:
        until_ready(web)
        yield web


def run_in_loop(web: WebInThread, work: Callable[[], None]) -> None:
    """Run `work` in one iteration of the serving event loop."""
    done: Future[None] = Future()

    def turn() -> None:
        try:
            work()
            done.set_result(None)
        except BaseException as fault:  # noqa: BLE001 raised in the test's own thread
            done.set_exception(fault)

    web._loop.call_soon_threadsafe(turn)
    done.result(30)


def idle_stream(web: WebInThread) -> Stream:
    """Return the only client once it is idle."""
    feed: Any = web.app.state.web.feed
    eventually(lambda: any(feed._idle.values()), what="an idle client")
    (stream,) = feed._clients
    assert isinstance(stream, Stream)
    return stream


def take_event_after(web: WebInThread, db: DbVerbs, moment: Callable[[Stream], None]) -> None:
    """Read an event for all clients right after `moment` has released the client, whose task has not run yet."""
    feed: Any = web.app.state.web.feed
    stream = idle_stream(web)
    web.client.submit()
    assert db.do(sequence_feed)
    page = db.do(read_feed, feed.buffer.high, limit=100)

    def turn() -> None:
        moment(stream)
        feed._take(page)

    run_in_loop(web, turn)


def test_event_read_during_a_heartbeat_is_not_skipped(web: WebInThread, db: DbVerbs) -> None:
    """The client was released for a heartbeat and is not woken again; its position must not move past the event."""
    with open_stream(web.client.url) as stream:
        stream.until("init")
        take_event_after(web, db, Stream._stop_waiting)
        assert seen_events(stream.take(1)) == ledger(db.engine)


def test_event_read_during_the_end_of_a_stream_is_found_by_its_cursor(web: WebInThread, db: DbVerbs) -> None:
    """The last id sent to the client lets it resume with that event."""
    with open_stream(web.client.url) as stream:
        messages = stream.until("init")
        take_event_after(web, db, Stream._expire)
        with suppress(IncompleteRead):
            messages += list(stream.messages())
    cursor = [message.id for message in messages if message.id][-1]
    assert cursor is not None
    told_before = [message for message in messages if message.event not in {"", "init"}]
    with open_stream(web.client.url, {"last_event_id": cursor}) as resumed:
        told_after = resumed.take(1 - len(told_before)) if not told_before else []
        assert seen_events(told_before + told_after) == ledger(db.engine)


def test_delayed_snapshot_has_its_id(settings: Settings, db: DbVerbs) -> None:
    """Heartbeats before its first line are comments of their own, and no part of that line."""
    with served(settings.model_copy(update={"sse_heartbeat_seconds": 0.05})) as web:
        until_ready(web)
        web.client.submit()
        with db.engine.begin() as holder:
            holder.execute(text("LOCK TABLE sessions"))
            stream = Connection(web.client.url)
            heard = stream.parser

            def three_heartbeats() -> bool:
                announced.extend(heard.feed(stream.response.read1(100)))
                return heard.comments >= 3

            announced: list[Any] = []
            eventually(three_heartbeats, what="heartbeats")
        (*_, snapshot) = stream.until("init")
        stream.close()
    assert snapshot.id is not None
    assert "~" not in snapshot.id


def test_events_dropped_before_the_reader_reached_them_cause_a_reset(web: WebInThread, db: DbVerbs) -> None:
    """The process was frozen for longer than events are kept: its clients are told that history is incomplete."""
    feed: Any = web.app.state.web.feed
    with open_stream(web.client.url) as stream:
        stream.until("init")
        idle_stream(web)
        for _ in range(2):
            web.client.submit()
        db.do(sequence_feed)
        db.rows("WITH old AS (DELETE FROM events WHERE feed_pos <= 3) UPDATE feed_head SET floor = 3")
        page = db.do(read_feed, feed.buffer.high, limit=100)
        run_in_loop(web, lambda: feed._take(page))
        reset, snapshot = stream.take(2)
    assert (reset.event, reset.data) == ("reset", '{"reason":"expired"}')
    assert (snapshot.event, snapshot.position) == ("init", 4)
