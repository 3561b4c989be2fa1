"""What happens to a stream in one and the same turn of the event loop, before the stream itself has its turn."""

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
from tests.support.db_verbs import DbVerbs
from tests.support.feed_follower import Connection, following, ledger, told
from tests.support.waiting import eventually
from tests.support.web import WebInThread, served, until_ready

# Nothing moves by itself: the test decides what comes when.
STILL = {"feed_poll_seconds": 1000, "sse_heartbeat_seconds": 30}


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings.model_copy(update=STILL)) as web:
        until_ready(web)
        yield web


def in_its_loop(web: WebInThread, work: Callable[[], None]) -> None:
    """Do something in one turn of the loop that serves."""
    done: Future[None] = Future()

    def turn() -> None:
        try:
            work()
            done.set_result(None)
        except BaseException as fault:  # noqa: BLE001 raised in the test's own thread
            done.set_exception(fault)

    web._loop.call_soon_threadsafe(turn)
    done.result(10)


def the_idle(web: WebInThread) -> Stream:
    """The only client, when it waits for something to come."""
    feed: Any = web.app.state.web.feed
    eventually(lambda: any(feed._idle.values()), what="an idle client")
    (stream,) = feed._clients
    assert isinstance(stream, Stream)
    return stream


def an_event_taken_in_the_turn_of(web: WebInThread, db: DbVerbs, moment: Callable[[Stream], None]) -> None:
    """An event is read for all clients right after something else has let the client go on, which has not had its turn."""
    feed: Any = web.app.state.web.feed
    stream = the_idle(web)
    web.client.submit()
    assert db.do(sequence_feed)
    page = db.do(read_feed, feed.window.high, limit=100)

    def turn() -> None:
        moment(stream)
        feed._take(page)

    in_its_loop(web, turn)


def test_an_event_in_the_moment_of_a_heartbeat_is_not_passed_over(web: WebInThread, db: DbVerbs) -> None:
    """The client was let go for a heartbeat and is not woken any more; its position must not move over the event."""
    with following(web.client.url) as stream:
        stream.until("init")
        an_event_taken_in_the_turn_of(web, db, Stream._stop_waiting)
        assert told(stream.take(1)) == ledger(db.engine)


def test_an_event_in_the_moment_of_a_streams_end_is_found_by_its_cursor(web: WebInThread, db: DbVerbs) -> None:
    """The last id that the client was told lets it resume with that event."""
    with following(web.client.url) as stream:
        messages = stream.until("init")
        an_event_taken_in_the_turn_of(web, db, Stream._expire)
        with suppress(IncompleteRead):
            messages += list(stream.messages())
    cursor = [message.id for message in messages if message.id][-1]
    assert cursor is not None
    told_before = [message for message in messages if message.event not in {"", "init"}]
    with following(web.client.url, {"last_event_id": cursor}) as resumed:
        told_after = resumed.take(1 - len(told_before)) if not told_before else []
        assert told(told_before + told_after) == ledger(db.engine)


def test_a_snapshot_that_had_to_wait_has_its_id(settings: Settings, db: DbVerbs) -> None:
    """Signs of life before its first line are comments of their own, and no part of that line."""
    with served(settings.model_copy(update={"sse_heartbeat_seconds": 0.05})) as web:
        until_ready(web)
        web.client.submit()
        with db.engine.begin() as holder:
            holder.execute(text("LOCK TABLE sessions"))
            stream = Connection(web.client.url)
            heard = stream.parser

            def beaten() -> bool:
                announced.extend(heard.feed(stream.response.read1(100)))
                return heard.comments >= 3

            announced: list[Any] = []
            eventually(beaten, what="heartbeats")
        (*_, snapshot) = stream.until("init")
        stream.close()
    assert snapshot.id is not None
    assert "~" not in snapshot.id


def test_events_that_went_before_the_reader_came_to_them_are_not_passed_over(web: WebInThread, db: DbVerbs) -> None:
    """The process was frozen for longer than events are kept: its clients are told that history is not whole."""
    feed: Any = web.app.state.web.feed
    with following(web.client.url) as stream:
        stream.until("init")
        the_idle(web)
        for _ in range(2):
            web.client.submit()
        db.do(sequence_feed)
        db.rows("WITH old AS (DELETE FROM events WHERE feed_pos <= 3) UPDATE feed_head SET floor = 3")
        page = db.do(read_feed, feed.window.high, limit=100)
        in_its_loop(web, lambda: feed._take(page))
        reset, snapshot = stream.take(2)
    assert (reset.event, reset.data) == ("reset", '{"reason":"expired"}')
    assert (snapshot.event, snapshot.position) == ("init", 4)
