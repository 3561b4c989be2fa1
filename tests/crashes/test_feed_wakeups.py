"""What wakes the reader of the feed when it does not look by itself: each bell alone is enough (ARCHITECTURE, The feed)."""

from collections.abc import Callable, Iterator

import pytest

from models.feed.sequence import sequence_feed
from runtime.postgres import sync_engine
from runtime.redis_client import sync_client
from runtime.settings import Settings
from runtime.subscriptions import publish_head
from tests.support.cluster import Cluster
from tests.support.db_verbs import DbVerbs
from tests.support.feed_follower import Connection, following, head, ledger, told
from tests.support.servers import OwnPostgres, OwnRedis, looking
from tests.support.waiting import eventually
from tests.support.web import WebInThread, served, until_ready

# Longer than any test.
NEVER = 1000.0


@pytest.fixture
def web(settings: Settings, own_redis: OwnRedis) -> Iterator[WebInThread]:
    """A web process that reads when it is rung, and not otherwise."""
    still = settings.model_copy(update={"redis_url": own_redis.url, "feed_poll_seconds": NEVER})
    with served(still) as web:
        until_ready(web)
        eventually(lambda: web.app.state.web.subscription.connected, what="a subscription")
        yield web


@pytest.fixture
def stream(web: WebInThread) -> Iterator[Connection]:
    """A client that has seen its snapshot, and waits."""
    with following(web.client.url) as stream:
        stream.until("init")
        eventually(lambda: any(web.app.state.web.feed._idle.values()), what="an idle client")
        yield stream


def number_silently(db: DbVerbs) -> None:
    """An event is numbered, and nobody tells."""
    db.start()
    assert db.do(sequence_feed)


def test_a_new_head_is_read_at_once(stream: Connection, own_redis: OwnRedis, db: DbVerbs) -> None:
    """Told by whoever has numbered."""
    number_silently(db)
    redis = sync_client(own_redis.url)
    publish_head(redis, head(db.engine))
    assert told(stream.take(1)) == ledger(db.engine)
    redis.close()


def test_a_worker_numbers_and_tells(
    stream: Connection, web: WebInThread, cluster: Cluster, own_redis: OwnRedis, db: DbVerbs
) -> None:
    """After the ring of whoever wrote, wherever that was."""
    cluster.start_worker(redis_url=own_redis.url)
    web.client.submit()
    assert told(stream.take(1)) == ledger(db.engine)


def cut(redis: OwnRedis) -> None:
    """End all subscriptions in the server."""
    client = looking(redis.url)
    assert client.client_kill_filter(_type="pubsub")
    client.close()


def restart(redis: OwnRedis) -> None:
    """Kill it, and start it again."""
    redis.kill()
    redis.start()


@pytest.mark.parametrize("lose", [cut, restart], ids=lambda way: way.__name__)
def test_whatever_was_told_while_nobody_listened_is_read(
    stream: Connection, own_redis: OwnRedis, db: DbVerbs, lose: Callable[[OwnRedis], None]
) -> None:
    """Every confirmation of a subscription is a ring."""
    number_silently(db)
    lose(own_redis)
    assert told(stream.take(1)) == ledger(db.engine)


def test_the_return_of_postgres_is_a_ring(own_postgres: OwnPostgres, settings: Settings) -> None:
    """Whoever was rung while it was away has read nothing."""
    still = settings.model_copy(
        update={"database_url": own_postgres.url.replace("://", "+psycopg://", 1), "feed_poll_seconds": NEVER}
    )
    engine = sync_engine(still, name="test")
    with served(still) as web, following(web.client.url) as stream:
        until_ready(web)
        stream.until("init")
        number_silently(DbVerbs(engine))
        engine.dispose()
        own_postgres.kill()
        eventually(lambda: web.app.state.web.health.away, what="an outage that is noticed")
        own_postgres.start()
        assert told(stream.take(1)) == ledger(engine)
    engine.dispose()
