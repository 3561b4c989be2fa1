"""Flush, kill, stop and freeze Redis under load: clients and runners notice nothing (promises 2 and 5)."""

from collections.abc import Callable
from functools import partial
from itertools import chain

import httpx
import pytest
from sqlalchemy import Engine

from testkit.cluster import Cluster
from testkit.servers import OwnRedis, redis_client
from testkit.waiting import eventually
from tests.support.run_history import assert_nothing_lost_or_doubled, claims, finish, histories, reports_refused
from tests.support.traffic import Traffic

AWAY: dict[str, tuple[Callable[[OwnRedis], None], Callable[[OwnRedis], None]]] = {
    "killed": (OwnRedis.kill, OwnRedis.start),
    "stopped": (OwnRedis.stop, OwnRedis.start),
    "frozen": (OwnRedis.freeze, OwnRedis.thaw),
}


def assert_all_well(engine: Engine, traffic: Traffic) -> None:
    """Check that every call was answered at the first try and is in the database once."""
    assert_nothing_lost_or_doubled(engine, traffic.ledger)
    assert {claims(history) for history in histories(engine).values()} == {1}
    assert not traffic.ledger.refused()
    assert not traffic.ledger.unheard
    assert not reports_refused(traffic.ledger)


@pytest.mark.parametrize("ways", [("stopped", "killed"), ("frozen",)], ids=" ".join)
def test_submissions_claims_and_reports_go_on_without_redis(
    cluster: Cluster, engine: Engine, own_redis: OwnRedis, ways: tuple[str, ...]
) -> None:
    """See no error while it is away and none when it returns; then every part is as before."""
    webs, workers = cluster.start_processes(redis_url=own_redis.url)
    with Traffic([web.url for web in webs], runners=6) as traffic:
        traffic.until_completed(15)
        for way in ways:
            leave, come_back = AWAY[way]
            leave(own_redis)
            traffic.until_completed(25)
            come_back(own_redis)
            traffic.until_completed(25)
        finish(traffic, engine)
    assert_all_well(engine, traffic)
    for web in webs:
        eventually(partial(is_well, web.url), what="all parts are back")
    assert all(process.alive and "Traceback" not in process.log() for process in chain(webs, workers))


def test_flush_under_load_loses_nothing(cluster: Cluster, engine: Engine, own_redis: OwnRedis) -> None:
    """Flush repeatedly: Redis holds hints only."""
    webs, workers = cluster.start_processes(redis_url=own_redis.url)
    client = redis_client(own_redis.url)
    with Traffic([web.url for web in webs], runners=6) as traffic:
        for _ in range(6):
            traffic.until_completed(8)
            client.flushall()
        traffic.until_completed(8)
        finish(traffic, engine)
    client.close()
    assert_all_well(engine, traffic)
    assert all(process.alive and "Traceback" not in process.log() for process in chain(webs, workers))


def is_well(url: str) -> bool:
    """Return whether the process reports itself ready without reservation."""
    return bool(httpx.get(f"{url}/health/ready", timeout=30).json() == {"status": "ready"})
