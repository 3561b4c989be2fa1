"""Check that web processes number after their commits, and that the nets number what they leave (promise 3).

Readers of the feed do not poll here: what arrives was numbered and read for the commit that wrote it.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import create_engine, text

from app.feed.numbering import Numbering
from runtime.metrics import NUMBERING_PASSES, WAKEUPS
from runtime.names import Actor
from runtime.settings import Settings
from testkit.cluster import Cluster
from testkit.feed_follower import Connection, ledger, open_stream, seen_events
from testkit.recorded_events import RECORDED_EVENTS
from testkit.servers import OwnPostgres, OwnRedis
from testkit.waiting import eventually
from tests.support.contenders import run_in_threads, steppers
from tests.support.db_verbs import DbVerbs
from tests.support.held_passes import held_pass
from tests.support.numbering import assert_dense, execute
from tests.support.web import WebClient, WebInThread, served, until_ready

# Longer than any test.
NEVER = 1000.0


@pytest.fixture
def still(settings: Settings) -> Settings:
    """Return settings of a web process that reads the feed for its own commits and published heads only."""
    return settings.model_copy(update={"feed_poll_seconds": NEVER})


@pytest.fixture
def web(still: Settings) -> Iterator[WebInThread]:
    with served(still) as web:
        until_ready(web)
        yield web


def following(stack: ExitStack, web: WebInThread) -> Connection:
    """Open a stream that has its snapshot and is idle."""
    stream = stack.enter_context(open_stream(web.client.url))
    stream.until("init")
    eventually(lambda: any(web.app.state.web.feed._idle.values()), what="an idle client")
    return stream


def say(client: WebClient, session_id: str, content: str) -> None:
    event = {"event_type": "message", "session_id": session_id, "timestamp": "t", "content": content}
    assert client.post(f"/sessions/{session_id}/events", event).status_code == 201


def event_committed_during_a_pass_is_numbered(web: WebInThread, db: DbVerbs, patch: pytest.MonkeyPatch) -> None:
    """Commit an event while a pass that began before is under way: the next pass numbers it."""
    with held_pass(web, patch) as held:
        web.client.submit(session_id="before")
        assert held.has_run.wait(30)
        web.client.submit(session_id="during")
        held.release()
        eventually(
            lambda: db.count(RECORDED_EVENTS, "feed_pos IS NULL") == 0, 5, what="a pass that began after the commit"
        )


def test_event_committed_during_a_pass_is_numbered_by_the_next(
    web: WebInThread, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_committed_during_a_pass_is_numbered(web, db, monkeypatch)


def test_notified_during_passes_share_the_next(web: WebInThread, db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Number twenty commits of the time of one pass by one further pass."""
    numbered = NUMBERING_PASSES.labels("numbered")
    with held_pass(web, monkeypatch) as held:
        web.client.submit()
        assert held.has_run.wait(30)
        before = numbered._value.get()
        for _ in range(20):
            web.client.submit()
        held.release()
        eventually(lambda: db.count(RECORDED_EVENTS, "feed_pos IS NULL") == 0, what="numbered events")
        eventually(lambda: numbered._value.get() >= before + 2, what="the end of the pass")
    assert numbered._value.get() == before + 2


def test_two_processes_number_in_the_order_of_commits(still: Settings, db: DbVerbs) -> None:
    """Show each event at both processes, wherever it was written; nothing but the heads is published."""
    with served(still) as one, served(still) as other, ExitStack() as stack:
        for web in (one, other):
            until_ready(web)
            eventually(lambda web=web: web.app.state.web.subscription.connected, what="a subscription")
        session_id = str(one.client.submit()["session_id"])
        eventually(lambda: db.count(RECORDED_EVENTS, "feed_pos IS NULL") == 0, what="numbered events")
        streams = [following(stack, web) for web in (one, other)]
        for number in range(20):
            say((one, other)[number % 2].client, session_id, f"{number}")

        def say_ten(place: int) -> None:
            for _ in range(10):
                say((one, other)[place % 2].client, session_id, "x")

        run_in_threads(8, say_ten)
        got = [seen_events(stream.take(100)) for stream in streams]
        history = ledger(db.engine, where="kind = 'event'")
    assert got == [history, history]
    contents = db.rows(
        "SELECT frame::json->'data'->>'content' AS content FROM events WHERE kind = 'event' ORDER BY feed_pos"
    )
    assert [row.content for row in contents[:20]] == [str(number) for number in range(20)]
    assert_dense(db)


def test_own_commits_reach_clients_without_redis(still: Settings, own_redis: OwnRedis, db: DbVerbs) -> None:
    """Tell the process's own reader directly."""
    own_redis.kill()
    with served(still.model_copy(update={"redis_url": own_redis.url})) as web, ExitStack() as stack:
        until_ready(web)
        stream = following(stack, web)
        web.client.submit()
        assert seen_events(stream.take(1)) == ledger(db.engine)


def test_commits_of_another_process_reach_clients_without_redis(
    settings: Settings, own_redis: OwnRedis, db: DbVerbs
) -> None:
    """Find them by the reader's next look."""
    own_redis.kill()
    away = settings.model_copy(update={"redis_url": own_redis.url})
    with served(away) as writing, served(away) as reading, ExitStack() as stack:
        until_ready(writing)
        until_ready(reading)
        stream = following(stack, reading)
        writing.client.submit()
        assert seen_events(stream.take(1)) == ledger(db.engine)


def test_failed_pass_wakes_the_actor_and_is_repeated(web: WebInThread, db: DbVerbs) -> None:
    """Number when the database can again, without another commit."""
    failed, sent = NUMBERING_PASSES.labels("failed"), WAKEUPS.labels(Actor.BROADCAST, "sent")
    before, sent_before = failed._value.get(), sent._value.get()
    db.rows("ALTER FUNCTION sequence_feed RENAME TO away")
    web.client.submit()
    eventually(lambda: failed._value.get() > before, what="a failed pass")
    eventually(lambda: sent._value.get() > sent_before, what="a wake-up of the actor")
    db.rows("ALTER FUNCTION away RENAME TO sequence_feed")
    eventually(lambda: db.count(RECORDED_EVENTS, "feed_pos IS NULL") == 0, what="numbered events")


def test_busy_head_delays_events_and_loses_none(web: WebInThread, db: DbVerbs) -> None:
    """Look again until the other pass is over."""
    busy = NUMBERING_PASSES.labels("busy")
    before = busy._value.get()
    with steppers(db.engine, 1) as (holder,):
        holder.do(execute, "SELECT 1 FROM feed_head FOR UPDATE")
        web.client.submit()
        eventually(lambda: busy._value.get() > before + 1, what="two looks")
        holder.commit()
    eventually(lambda: db.count(RECORDED_EVENTS, "feed_pos IS NULL") == 0, what="numbered events")


def test_commits_of_an_outage_are_numbered_after_it(own_postgres: OwnPostgres, still: Settings) -> None:
    """Kill Postgres between a commit and its numbering: the process numbers when it is back, without another commit."""
    own = still.model_copy(update={"database_url": own_postgres.url.replace("://", "+psycopg://", 1)})
    with served(own) as web, ExitStack() as stack:
        until_ready(web)
        stream = following(stack, web)
        engine = create_engine(own.database_url, pool_pre_ping=True)
        holder = stack.enter_context(engine.connect())
        holder.execute(text("SELECT 1 FROM feed_head FOR UPDATE"))
        web.client.submit()
        holder.invalidate()
        own_postgres.kill()
        own_postgres.start()
        assert seen_events(stream.take(1)) == ledger(engine)
        engine.dispose()


def test_ending_process_numbers_its_last_commits(still: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Number once more after the last writes, when the loops of the process have ended."""

    async def never(_: Numbering) -> None: ...

    monkeypatch.setattr(Numbering, "number_forever", never)
    with served(still) as web:
        until_ready(web)
        web.client.submit()
        assert db.count(RECORDED_EVENTS, "feed_pos IS NULL") > 0
    assert db.count(RECORDED_EVENTS, "feed_pos IS NULL") == 0


@pytest.mark.parametrize("net", ["worker", "web"])
def test_event_of_a_process_killed_before_numbering_is_numbered(cluster: Cluster, db: DbVerbs, net: str) -> None:
    """Kill it between the commit and the numbering: the sweep of a worker or another process's reader numbers."""
    writing = cluster.start_web(wait=False)
    other = cluster.start_worker(wait=False) if net == "worker" else cluster.start_web(wait=False)
    for process in (writing, other):
        cluster.wait_until_ready(process)
    client = WebClient(writing.url)
    with ExitStack() as stack:
        streams = [stack.enter_context(open_stream(other.url))] if net == "web" else []
        for stream in streams:
            stream.until("init")
        with steppers(db.engine, 1) as (holder,):
            holder.do(execute, "SELECT 1 FROM feed_head FOR UPDATE")
            client.submit()
            writing.kill()
            holder.commit()
        eventually(lambda: db.count(RECORDED_EVENTS, "feed_pos IS NULL") == 0, what="numbered events")
        for stream in streams:
            assert seen_events(stream.take(1)) == ledger(db.engine)
    client.close()
