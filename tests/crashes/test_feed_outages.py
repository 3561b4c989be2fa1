"""Check streams while Postgres is away, returns with older data, or is held up by other transactions
(promises 3, 5).
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from models.feed.sequence import read_head, sequence_feed
from models.state.events_outbox import record_events
from runtime.settings import Settings
from testkit.feed_follower import Connection, Message, all_numbered, ledger, open_stream, seen_events
from testkit.servers import OwnPostgres
from testkit.waiting import eventually
from tests.support.contenders import steppers
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import execute, row
from tests.support.web import WebInThread, served, until_ready

LIVELY = {"sse_heartbeat_seconds": 0.1}


@pytest.fixture
def own_settings(own_postgres: OwnPostgres, redis_url: str) -> Settings:
    """Return settings of a web process whose Postgres is this test's alone."""
    return Settings(database_url=own_postgres.url, redis_url=redis_url).model_copy(update=LIVELY)


@pytest.fixture
def own_db(own_settings: Settings) -> Iterator[DbVerbs]:
    """Return verbs on that Postgres without our time limits, like transactions of other programs."""
    engine = create_engine(own_settings.database_url, pool_size=8, pool_pre_ping=True)
    yield DbVerbs(engine)
    engine.dispose()


def heartbeats(stream: Connection, times: int) -> list[Message]:
    """Wait for so many further heartbeats, and return what else arrived."""
    before = stream.parser.comments
    got: list[Message] = []

    def heard() -> bool:
        got.extend(stream.parser.feed(stream.response.read1(1000)))
        return stream.parser.comments >= before + times

    eventually(heard, what="signs of life")
    return got


def last_id(messages: list[Message]) -> str:
    """Return the cursor of a client that has received these messages."""
    return [message.id for message in messages if message.id is not None][-1]


# Postgres is away


def test_stream_opened_while_postgres_is_away_continues_when_it_returns(
    own_postgres: OwnPostgres, own_settings: Settings, own_db: DbVerbs
) -> None:
    """Answer 200, `retry:` and heartbeats; then send the snapshot, or what follows its cursor, on the same request."""
    own_db.start(session_id="before")
    cursor = own_db.do(read_head).cursor
    with served(own_settings) as web, ExitStack() as stack:
        until_ready(web)
        own_postgres.kill()
        new = stack.enter_context(open_stream(web.client.url))
        known = stack.enter_context(open_stream(web.client.url, Last_Event_ID=cursor))
        for stream in (new, known):
            assert stream.response.status == 200
            (only,) = heartbeats(stream, 3)
            assert only.retry is not None
        own_postgres.start()
        snapshot = new.until("init")[-1]
        assert [one["session_id"] for one in json.loads(snapshot.data)["sessions"]] == ["before"]
        own_db.start(session_id="after")
        got = known.take(2)
        assert seen_events(got) == ledger(own_db.engine)


def test_stream_of_a_process_that_never_saw_postgres_ends_with_retry(
    own_postgres: OwnPostgres, own_settings: Settings, own_db: DbVerbs
) -> None:
    """The process cannot know whether credentials are needed: answer 200, `retry:` and the end; later serve
    as usual.
    """
    own_db.start(session_id="before")
    own_postgres.kill()
    with served(own_settings) as web:
        with open_stream(web.client.url) as stream:
            assert stream.response.status == 200
            (only,) = stream.messages(within=30)
            assert only.retry is not None
        own_postgres.start()
        until_ready(web)
        with open_stream(web.client.url) as stream:
            snapshot = stream.until("init")[-1]
    assert [one["session_id"] for one in json.loads(snapshot.data)["sessions"]] == ["before"]


def test_live_stream_continues_after_a_crash_of_postgres(
    own_postgres: OwnPostgres, own_settings: Settings, own_db: DbVerbs
) -> None:
    """Keep the connection: send heartbeats only, then the next events."""
    with served(own_settings) as web, open_stream(web.client.url) as stream:
        stream.until("init")
        own_db.start()
        own_db.do(sequence_feed)
        seen = stream.take(1)
        own_postgres.kill()
        heartbeats(stream, 3)
        own_postgres.start()
        own_db.start()
        seen += stream.take(1)
        assert seen_events(seen) == ledger(own_db.engine)


# A long snapshot


SESSIONS = 10_000
# Larger than the buffers between a process and a client that does not read.
_MANY_SESSIONS = """
    INSERT INTO sessions (session_id, incarnation, status, project_dir)
    SELECT 'session-' || n, 'i', 'finished', repeat('x', 1024) FROM generate_series(1, :number) n
"""


@contextmanager
def in_the_middle_of_a_snapshot(web: WebInThread, db: DbVerbs) -> Iterator[tuple[Connection, list[Message]]]:
    """Open a stream whose snapshot is under way; return it with the messages before: the process waits for the client
    to read.
    """
    db.rows(_MANY_SESSIONS, number=SESSIONS)
    with closing(Connection(web.client.url, receive_buffer=4096)) as stream:
        messages: list[Message] = []
        while b"event: init" not in stream.parser.rest:
            messages.extend(stream.parser.feed(stream.response.read1(4096)))
        yield stream, messages


def test_snapshot_interrupted_by_a_crash_is_completed(
    own_postgres: OwnPostgres, own_settings: Settings, own_db: DbVerbs
) -> None:
    """Leave the message open; send the rest of it when Postgres is back."""
    with served(own_settings) as web:
        until_ready(web)
        with in_the_middle_of_a_snapshot(web, own_db) as (stream, before):
            own_postgres.kill()
            own_postgres.start()
            (snapshot,) = stream.until("init")
    assert "~" in last_id(before)
    assert is_whole(snapshot)


def test_client_that_left_within_a_snapshot_gets_another_one(
    own_postgres: OwnPostgres, own_settings: Settings, own_db: DbVerbs
) -> None:
    """Leave a process whose Postgres has gone; the last id says that a snapshot is owed, on any instance."""
    with served(own_settings) as web, served(own_settings) as other:
        until_ready(web)
        with in_the_middle_of_a_snapshot(web, own_db) as (_, before):
            own_postgres.kill()
        with open_stream(other.client.url, Last_Event_ID=last_id(before)) as stream:
            heartbeats(stream, 2)
            own_postgres.start()
            assert is_whole(stream.until("init")[-1])


def test_end_of_a_stream_does_not_complete_half_a_snapshot(own_settings: Settings, own_db: DbVerbs) -> None:
    """A `retry:` within or behind half a snapshot would make that half a whole message."""
    with served(own_settings) as web:
        until_ready(web)
        with in_the_middle_of_a_snapshot(web, own_db) as (stream, before):
            web.drain(0.1)
            eventually(web.app.state.drain.over.is_set, what="the end of the drain")
            assert list(stream.messages()) == []
            assert b"retry" not in stream.parser.rest
            assert stream.parser.rest
    assert "~" in last_id(before)


def is_whole(snapshot: Message) -> bool:
    """Return whether every session is in it, once."""
    shown = [one["session_id"] for one in json.loads(snapshot.data)["sessions"]]
    return len(shown) == SESSIONS and len(set(shown)) == SESSIONS and "~" not in str(snapshot.id)


# Transactions of other programs


def is_building(engine: Engine) -> bool:
    """Return whether an index build is waiting for a foreign transaction."""
    statement = "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'"
    with engine.connect() as connection:
        return bool(connection.execute(text(statement)).scalar_one())


def test_endless_transactions_and_a_waiting_index_build_delay_no_events(
    own_settings: Settings, own_db: DbVerbs
) -> None:
    """Leave open one that wrote, one prepared and one that only read: other events flow; theirs follow when they
    commit.
    """
    with served(own_settings) as web, open_stream(web.client.url) as stream, ExitStack() as stack:
        stream.until("init")
        idle, prepared, reader = stack.enter_context(steppers(own_db.engine, 3))
        idle.do(record_events, [row(0)])
        prepared.do(record_events, [row(1)])
        prepared.do(execute, "PREPARE TRANSACTION 'held'")
        reader.do(execute, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.do(execute, "SELECT count(*) FROM unnumbered_batches")
        threads = stack.enter_context(ThreadPoolExecutor(1))
        index = threads.submit(
            alone, own_db.engine, "CREATE INDEX CONCURRENTLY waits ON unnumbered_batches (created_at)"
        )
        eventually(lambda: is_building(own_db.engine), what="an index that waits")
        seen = []
        for number in range(3):
            own_db.do(record_events, [row(10 + number)])
            seen += stream.take(1)
        assert not index.done()
        for commit in (idle.commit, reader.commit):
            commit()
        seen += stream.take(1)
        alone(own_db.engine, "COMMIT PREPARED 'held'")
        seen += stream.take(1)
        index.result(30)
        assert seen_events(seen) == ledger(own_db.engine)
    contents = [json.loads(message.data)["data"]["content"] for message in seen]
    assert contents == [10, 11, 12, 0, 1]
    assert all_numbered(own_db.engine)


def alone(engine: Engine, statement: str) -> None:
    """Execute a statement outside a transaction."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        execute(connection, statement)


# Another history


RESTORED = {
    "epoch": "UPDATE feed_head SET epoch = 'restored'",
    "ahead": "WITH lost AS (DELETE FROM events WHERE feed_pos > 2) UPDATE feed_head SET last_pos = 2",
}


@pytest.mark.parametrize("reason", RESTORED)
def test_live_clients_get_a_reset_after_a_restore(settings: Settings, db: DbVerbs, reason: str) -> None:
    """Restore a backup under them: send `reset`, a fresh snapshot and the next events on the same request."""
    with served(settings.model_copy(update=LIVELY)) as web, ExitStack() as stack:
        queries: list[dict[str, Any]] = [{}, {"types": "session_created"}, {"include_init": "false"}]
        opened = [stack.enter_context(open_stream(web.client.url, query)) for query in queries]
        for stream, query in zip(opened, queries, strict=True):
            next(message for message in stream.messages() if message.id and (message.event or "include_init" in query))
        for number in range(4):
            db.start(session_id=f"s{number}")
        for stream in opened:
            assert len(stream.take(4)) == 4
        db.rows(RESTORED[reason])
        for stream in opened:
            reset, snapshot = stream.take(2)
            assert (reset.event, json.loads(reset.data)) == ("reset", {"reason": reason})
            assert snapshot.event == "init"
            assert len(json.loads(snapshot.data)["sessions"]) == 4
        before = db.do(read_head)
        db.start(session_id="next")
        for stream in opened:
            (message,) = stream.take(1)
            assert message.event == "session_created"
            assert message.id == f"v1.{before.epoch}.{before.position + 1}"
