"""Kill, cut and freeze parts of a cluster under writers and readers of the feed: one history remains (promise 3)."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from testkit.cluster import Cluster, Process
from testkit.servers import OwnPostgres, OwnRedis, redis_client
from testkit.waiting import eventually
from tests.support.feed_watchers import Watchers, acknowledged_events_are_in_history, watching
from tests.support.feed_writers import FeedWriters, writing
from tests.support.redis_faults import frozen

# Sessions that number events or read the feed for all clients: within a statement if there is one, as in a real fault.
_END_SEQUENCERS = text("""
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
      AND (query LIKE '%sequence_feed%' OR application_name IN ('coordinator worker', 'coordinator-web-feed'))
""")


@dataclass
class FeedCluster:
    """Two web processes and a worker, their servers, and all writers and readers at them."""

    cluster: Cluster
    postgres: OwnPostgres
    redis: OwnRedis
    engine: Engine
    webs: list[Process]
    workers: list[Process]
    urls: list[str]
    writers: FeedWriters
    watchers: Watchers
    fast_paths: bool


Fault = Callable[[FeedCluster], None]


def sequencers_are_terminated(system: FeedCluster) -> None:
    for _ in range(6):
        with system.engine.connect() as connection:
            assert connection.execute(_END_SEQUENCERS).scalar_one() > 0
        system.writers.until_each(1)


def webs_are_killed(system: FeedCluster) -> None:
    for place in range(2):
        system.webs[place].kill()
        system.webs[place] = _start_web(system)
        system.urls[place] = system.webs[place].url
        system.writers.until_each(1)


def workers_are_killed(system: FeedCluster) -> None:
    system.workers[0].kill()
    system.writers.until_each(3)
    system.workers[0] = system.cluster.start_worker(database_url=system.postgres.url, redis_url=system.redis.url)
    system.writers.until_each(2)


def redis_is_killed(system: FeedCluster) -> None:
    system.redis.kill()
    system.writers.until_each(4)
    system.redis.start()
    system.writers.until_each(4)


def redis_freezes(system: FeedCluster) -> None:
    with frozen(system.redis):
        system.writers.until_each(4)
    system.writers.until_each(4)


def subscriptions_are_cut(system: FeedCluster) -> None:
    with _redis_client(system.redis) as redis:
        for _ in range(6):
            assert eventually(lambda: redis.client_kill_filter(_type="pubsub"), what="a subscription")
            system.writers.until_each(1)


def postgres_crashes(system: FeedCluster) -> None:
    system.postgres.kill()
    system.postgres.start()
    system.engine.dispose()
    system.writers.until_each(3)


FAULTS: list[Fault] = [
    sequencers_are_terminated,
    webs_are_killed,
    workers_are_killed,
    redis_is_killed,
    redis_freezes,
    subscriptions_are_cut,
    postgres_crashes,
]
# Faults that hit the numbering of workers, which does all of it without fast paths.
FAULTS_OF_ACTORS: list[Fault] = [sequencers_are_terminated, workers_are_killed, redis_is_killed]


@pytest.mark.parametrize(
    ("fault", "fast_paths"),
    [*((fault, True) for fault in FAULTS), *((fault, False) for fault in FAULTS_OF_ACTORS)],
    ids=lambda value: value.__name__ if callable(value) else ("by processes" if value else "by actors"),
)
def test_history_survives_each_fault(
    cluster: Cluster,
    own_postgres: OwnPostgres,
    own_redis: OwnRedis,
    own_engine: Engine,
    fault: Fault,
    *,
    fast_paths: bool,
) -> None:
    """See no reset, no gap and no repeat; find every acknowledged event."""
    webs, workers = cluster.start_processes(
        workers=1,
        database_url=own_postgres.url,
        redis_url=own_redis.url,
        sse_heartbeat_seconds=0.3,
        fast_paths=fast_paths,
    )
    urls = [web.url for web in webs]
    with watching(urls, own_engine) as watchers:
        with writing(urls, own_engine) as writers:
            system = FeedCluster(
                cluster, own_postgres, own_redis, own_engine, webs, workers, urls, writers, watchers, fast_paths
            )
            writers.until_each(2)
            watchers.join_in()
            fault(system)
        watchers.saw_everything()
        acknowledged_events_are_in_history(writers.acknowledged, own_engine)
    assert all(process.alive and "Traceback" not in process.log() for process in (*webs, *workers))


@pytest.mark.parametrize("without", ["Redis", "both"])
def test_history_continues_without_workers_or_redis(
    cluster: Cluster, engine: Engine, own_redis: OwnRedis, without: str
) -> None:
    """Run without them from start to end: each web process numbers pending events, and both read them."""
    own_redis.kill()
    webs, _ = cluster.start_processes(
        workers=1 if without == "Redis" else 0, redis_url=own_redis.url, sse_heartbeat_seconds=0.3
    )
    urls = [web.url for web in webs]
    with watching(urls, engine) as watchers:
        with writing(urls, engine) as writers:
            writers.until_each(4)
            watchers.join_in()
            writers.until_each(2)
        watchers.saw_everything()
        acknowledged_events_are_in_history(writers.acknowledged, engine)
    assert all(web.alive and "Traceback" not in web.log() for web in webs)


def _start_web(system: FeedCluster) -> Process:
    return system.cluster.start_web(
        database_url=system.postgres.url,
        redis_url=system.redis.url,
        sse_heartbeat_seconds=0.3,
        fast_paths=system.fast_paths,
    )


def _redis_client(server: OwnRedis) -> Redis:
    """Return a connection that is closed with the block."""
    return redis_client(server.url)
