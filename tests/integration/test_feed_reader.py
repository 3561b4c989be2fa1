"""Feed reader of a web process: bounded queries however many clients it serves, waking of clients, and catching up."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any

import pytest
from sqlalchemy import event

from models.feed.sequence import read_head, sequence_feed
from runtime.settings import Settings
from testkit.feed_follower import Connection, ledger, open_stream, seen_events
from testkit.recorded_events import RECORDED_EVENTS
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebInThread, served, until_ready

QUICK = {"feed_poll_seconds": 0.05}


@contextmanager
def serving(settings: Settings, **values: Any) -> Iterator[WebInThread]:
    with served(settings.model_copy(update=QUICK | values)) as web:
        until_ready(web)
        yield web


def opened(stack: ExitStack, web: WebInThread, number: int, **query: Any) -> list[Connection]:
    """Open this many clients that have their snapshot and wait."""
    streams = [stack.enter_context(open_stream(web.client.url, query)) for _ in range(number)]
    for stream in streams:
        stream.until("init")
    return streams


def write(db: DbVerbs, web: WebInThread, session_id: str, number: int) -> None:
    event = {"event_type": "message", "session_id": session_id, "timestamp": "t"}
    for most in range(0, number, 1000):
        events = [event | {"content": n} for n in range(most, min(number, most + 1000))]
        assert web.client.post(f"/sessions/{session_id}/events", events).status_code == 201
    while db.do(sequence_feed):
        pass


@pytest.mark.parametrize("clients", [1, 200])
def test_queries_do_not_grow_with_clients(settings: Settings, db: DbVerbs, clients: int) -> None:
    """Cause ten bursts: at most ten reads, all by the reader; clients query nothing."""
    with serving(settings) as web, ExitStack() as stack:
        session_id = str(web.client.submit()["session_id"])
        db.do(sequence_feed)
        streams = opened(stack, web, clients)
        eventually(lambda: web.app.state.web.feed.buffer.high == db.do(read_head).position, what="the reader")
        asked: Counter[str] = Counter()
        inside = web.app.state.web
        for name, engine in (("reader", inside._following), ("clients", inside._reading)):

            def count(_c: Any, _cursor: Any, statement: str, *_: Any, by: str = name) -> None:
                if "frame" in statement:
                    asked[by] += 1

            event.listen(engine.sync_engine, "before_cursor_execute", count)
        for _ in range(10):
            write(db, web, session_id, 3)
            for stream in streams:
                assert len(stream.take(3)) == 3
    assert asked["clients"] == 0
    assert 1 <= asked["reader"] <= 10


@pytest.mark.parametrize("missed", [10, 1500])
def test_nothing_is_read_without_clients(settings: Settings, db: DbVerbs, missed: int) -> None:
    """Serve the first client afterwards completely, whether it resumes or starts, and with what follows."""
    with serving(settings) as web, ExitStack() as stack:
        session_id = str(web.client.submit()["session_id"])
        begin = f"v1.{db.do(read_head).epoch}.0"
        asked: Counter[str] = Counter()
        with reads_of(web, asked):
            write(db, web, session_id, missed)
            web.app.state.web.feed.notify()
            write(db, web, session_id, 1)
            eventually(lambda: asked["looks"] >= 2, what="the reader that only looks")
        assert asked["pages"] == 0
        resuming = stack.enter_context(open_stream(web.client.url, {"last_event_id": begin, "types": "event"}))
        (beginning,) = opened(stack, web, 1, types="event")
        got = resuming.take(missed + 1)
        write(db, web, session_id, 3)
        history = ledger(db.engine, where="kind = 'event'")
        assert seen_events(got + resuming.take(3)) == history
        assert seen_events(beginning.take(3)) == history[-3:]


@contextmanager
def reads_of(web: WebInThread, asked: Counter[str]) -> Iterator[None]:
    """Count the reader's queries: pages of events and positions of the feed."""

    def count(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked["pages" if "frame" in statement else "looks"] += 1

    engine = web.app.state.web._following.sync_engine
    event.listen(engine, "before_cursor_execute", count)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", count)


def test_client_far_behind_catches_up_and_joins_buffer(settings: Settings, db: DbVerbs) -> None:
    """Read pages from Postgres until the buffer is reached, then follow it; nothing is missing in between."""
    with serving(settings, feed_window_events=50, catch_up_page_events=20) as web, ExitStack() as stack:
        opened(stack, web, 1)
        session_id = str(web.client.submit()["session_id"])
        begin = f"v1.{db.do(read_head).epoch}.0"
        write(db, web, session_id, 300)
        eventually(lambda: web.app.state.web.feed.buffer.high >= 302, what="the reader")
        for query in ({}, {"session_id": session_id}, {"types": "event"}):
            with open_stream(web.client.url, query | {"last_event_id": begin}) as stream:
                got = stream.take(200)
                write(db, web, session_id, 5)
                where = "kind = 'event'" if "types" in query else "kind <> 'run_updated'"
                history = ledger(db.engine, where=where)
                got += stream.take(len(history) - 200)
                assert seen_events(got) == history


def test_events_larger_than_buffer_are_sent(settings: Settings, db: DbVerbs) -> None:
    """End a page after some megabytes, and send an event that is larger than the buffer."""
    with serving(settings, feed_window_bytes=4096) as web, ExitStack() as stack:
        session_id = str(web.client.submit()["session_id"])
        begin = f"v1.{db.do(read_head).epoch}.0"
        db.do(sequence_feed)
        (live,) = opened(stack, web, 1)
        for size in (3_000_000, 10, 12_000_000, 10):
            event = {"event_type": "message", "session_id": session_id, "timestamp": "t", "content": noise(size)}
            assert web.client.post(f"/sessions/{session_id}/events", event).status_code == 201
        db.do(sequence_feed)
        history = ledger(db.engine, where="kind = 'event'")
        assert seen_events(live.take(4)) == history
        (behind,) = [stack.enter_context(open_stream(web.client.url, {"last_event_id": begin, "types": "event"}))]
        assert seen_events(behind.take(4)) == history


def noise(size: int) -> str:
    """Return text that compresses badly."""
    return "".join(Random(size).choices("0123456789abcdefghijklmnopqrstuvwxyz", k=size))


def test_few_clients_read_history_at_once(settings: Settings, db: DbVerbs) -> None:
    """Serve a crowd after an outage in turn, without the connections of others."""
    with serving(settings, feed_window_events=10, catch_up_readers=2) as web, ExitStack() as stack:
        session_id = str(web.client.submit()["session_id"])
        begin = f"v1.{db.do(read_head).epoch}.0"
        write(db, web, session_id, 500)
        most = 0
        now: set[Any] = set()

        def started(conn: Any, *_: Any) -> None:
            nonlocal most
            now.add(conn)
            most = max(most, len(now))

        def done(conn: Any, *_: Any) -> None:
            now.discard(conn)

        engine = web.app.state.web._reading.sync_engine
        event.listen(engine, "before_cursor_execute", started)
        event.listen(engine, "after_cursor_execute", done)
        streams = [
            stack.enter_context(open_stream(web.client.url, {"last_event_id": begin, "types": "event"}))
            for _ in range(30)
        ]
        for stream in streams:
            assert len(stream.take(500)) == 500
    assert 1 <= most <= 3, "two that catch up, and one for what the process itself looks at"


def test_only_clients_of_affected_session_are_woken(settings: Settings, db: DbVerbs) -> None:
    """Let a client of one session sleep while another is busy."""
    with serving(settings) as web, ExitStack() as stack:
        quiet, busy = (str(web.client.submit()["session_id"]) for _ in range(2))
        db.do(sequence_feed)
        opened(stack, web, 3, session_id=quiet)
        watching = opened(stack, web, 1, session_id=busy)[0]
        feed = web.app.state.web.feed
        idle = feed._idle["session", quiet]
        eventually(lambda: len(idle) == 3, what="idle clients")
        before = set(idle)
        write(db, web, busy, 10)
        assert len(watching.take(10)) == 10
        assert set(feed._idle["session", quiet]) == before


def test_reader_numbers_events_without_workers(settings: Settings, db: DbVerbs) -> None:
    """Remove all workers, or Redis: an event gets its position when it is a second old."""
    with serving(settings, fast_paths=False) as web, ExitStack() as stack:
        (stream,) = opened(stack, web, 1)
        web.client.submit()
        assert [message.event for message in stream.take(1)] == ["session_created"]
    assert db.count(RECORDED_EVENTS, "feed_pos IS NULL") == 0
