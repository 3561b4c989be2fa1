"""Check that each wake-up alone makes the feed reader read, when it does not poll (docs/architecture.md, the feed)."""

from collections.abc import Callable, Iterator

import pytest

from models.feed.sequence import sequence_feed
from runtime.postgres import sync_engine
from runtime.pubsub import publish_head
from runtime.redis_client import sync_client
from runtime.settings import Settings
from testkit.cluster import Cluster
from testkit.feed_follower import Connection, head, ledger, open_stream, seen_events
from testkit.servers import OwnPostgres, OwnRedis, redis_client
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebInThread, served, until_ready

# Longer than any test.
NEVER = 1000.0


@pytest.fixture
def web(settings: Settings, own_redis: OwnRedis) -> Iterator[WebInThread]:
    """Serve a web process that reads the feed on wake-ups only, and leaves numbering to workers."""
    quiet = {"redis_url": own_redis.url, "feed_poll_seconds": NEVER, "fast_paths": False}
    still = settings.model_copy(update=quiet)
    with served(still) as web:
        until_ready(web)
        eventually(lambda: web.app.state.web.subscription.connected, what="a subscription")
        yield web


@pytest.fixture
def stream(web: WebInThread) -> Iterator[Connection]:
    """Open a stream that has received its snapshot and is idle."""
    with open_stream(web.client.url) as stream:
        stream.until("init")
        eventually(lambda: any(web.app.state.web.feed._idle.values()), what="an idle client")
        yield stream


def number_silently(db: DbVerbs) -> None:
    """Number an event and send no wake-up."""
    db.start()
    assert db.do(sequence_feed)


def test_published_head_is_read_at_once(stream: Connection, own_redis: OwnRedis, db: DbVerbs) -> None:
    number_silently(db)
    redis = sync_client(own_redis.url)
    publish_head(redis, head(db.engine))
    assert seen_events(stream.take(1)) == ledger(db.engine)
    redis.close()


def test_worker_numbers_and_publishes_the_head(
    stream: Connection, web: WebInThread, cluster: Cluster, own_redis: OwnRedis, db: DbVerbs
) -> None:
    """Start from the wake-up of the writer, on any instance."""
    cluster.start_worker(redis_url=own_redis.url)
    web.client.submit()
    assert seen_events(stream.take(1)) == ledger(db.engine)


def cut(redis: OwnRedis) -> None:
    """End all subscriptions in the server."""
    client = redis_client(redis.url)
    assert client.client_kill_filter(_type="pubsub")
    client.close()


def restart(redis: OwnRedis) -> None:
    """Kill it, and start it again."""
    redis.kill()
    redis.start()


@pytest.mark.parametrize("lose", [cut, restart], ids=lambda way: way.__name__)
def test_events_published_without_a_subscription_are_read(
    stream: Connection, own_redis: OwnRedis, db: DbVerbs, lose: Callable[[OwnRedis], None]
) -> None:
    """Every confirmation of a subscription counts as a wake-up."""
    number_silently(db)
    lose(own_redis)
    assert seen_events(stream.take(1)) == ledger(db.engine)


def test_return_of_postgres_is_a_wakeup(own_postgres: OwnPostgres, settings: Settings) -> None:
    """Reads that were due during the outage have failed."""
    still = settings.model_copy(
        update={"database_url": own_postgres.url.replace("://", "+psycopg://", 1), "feed_poll_seconds": NEVER}
    )
    engine = sync_engine(still, name="test")
    with served(still) as web, open_stream(web.client.url) as stream:
        until_ready(web)
        stream.until("init")
        number_silently(DbVerbs(engine))
        engine.dispose()
        own_postgres.kill()
        eventually(lambda: web.app.state.web.health.away, what="an outage that is noticed")
        own_postgres.start()
        assert seen_events(stream.take(1)) == ledger(engine)
    engine.dispose()
