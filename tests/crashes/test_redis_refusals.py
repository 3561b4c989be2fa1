"""Check a Redis that answers but does not serve: full, a read-only replica, or restricted by an ACL (promise 5)."""

from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

import httpx
import pytest
from redis import Redis
from sqlalchemy import Engine

from runtime.redis_client import fault_of
from testkit.cluster import Cluster
from testkit.servers import OwnRedis, redis_client
from testkit.waiting import eventually
from tests.crashes.test_redis_outages import assert_all_well, is_well
from tests.support.run_history import finish
from tests.support.traffic import Traffic


def fill(client: Redis, _server: OwnRedis) -> None:
    client.config_set("maxmemory", "1")


def empty(client: Redis) -> None:
    client.config_set("maxmemory", "0")


def demote(client: Redis, server: OwnRedis) -> None:
    """Make it a replica of a missing primary, which serves reads and subscriptions."""
    client.replicaof("127.0.0.1", server.port + 1)


def promote(client: Redis) -> None:
    client.replicaof("NO", "ONE")


def forbid(client: Redis, _server: OwnRedis) -> None:
    _set_rules(client, "-@write", "+config", "+acl")


def permit(client: Redis) -> None:
    _set_rules(client, "+@all")


def silence(client: Redis, _server: OwnRedis) -> None:
    _set_rules(client, "resetchannels", "&elsewhere")


def unsilence(client: Redis) -> None:
    _set_rules(client, "allchannels")


def _set_rules(client: Redis, *rules: str) -> None:
    client.execute_command("ACL", "SETUSER", "default", *rules)  # type: ignore[no-untyped-call]  # redis-py annotates it not


Way = tuple[Callable[[Redis, OwnRedis], None], Callable[[Redis], None], str]
WAYS: dict[str, Way] = {
    "full": (fill, empty, "Redis refuses writes: its memory is full (maxmemory)"),
    "replica": (demote, promote, "Redis refuses writes: it is a read-only replica"),
    "ACL": (forbid, permit, "Redis refuses commands: its ACL forbids them to our user"),
    "channels": (silence, unsilence, "Redis refuses commands: its ACL forbids them to our user"),
}


def readiness(url: str) -> tuple[int, dict[str, str]]:
    answer = httpx.get(f"{url}/health/ready", timeout=30)
    return answer.status_code, answer.json()


@pytest.mark.parametrize("way", WAYS)
def test_readiness_names_the_fault_of_a_refusing_redis(cluster: Cluster, own_redis: OwnRedis, way: str) -> None:
    """PING and a subscription may be answered meanwhile: report degraded with the reason, and ready when it is over."""
    refuse, relent, fault = WAYS[way]
    web = cluster.start_web(redis_url=own_redis.url)
    cluster.start_worker(redis_url=own_redis.url)
    client = redis_client(own_redis.url)
    eventually(partial(is_well, web.url), 40, what="ready")
    refuse(client, own_redis)
    eventually(lambda: readiness(web.url) == (200, {"status": "degraded", "reason": fault}), what=fault)
    relent(client)
    eventually(partial(is_well, web.url), 40, what="ready again")
    client.close()
    assert "Traceback" not in web.log()


def test_runs_go_on_while_redis_refuses_writes(cluster: Cluster, engine: Engine, own_redis: OwnRedis) -> None:
    """As without Redis: no error, no lost run; try each fault in turn, then check that all is as before."""
    webs, workers = cluster.start_processes(redis_url=own_redis.url)
    client = redis_client(own_redis.url)
    with Traffic([web.url for web in webs], runners=6) as traffic:
        traffic.until_completed(10)
        for refuse, relent, _ in WAYS.values():
            refuse(client, own_redis)
            traffic.until_completed(15)
            relent(client)
            traffic.until_completed(15)
        finish(traffic, engine)
    client.close()
    assert_all_well(engine, traffic)
    for web in webs:
        eventually(partial(is_well, web.url), 30, what="all parts are back")
    assert all(process.alive and "Traceback" not in process.log() for process in (*webs, *workers))


def test_readiness_names_refused_credentials(cluster: Cluster, own_redis: OwnRedis) -> None:
    """Tell a wrong password from silence."""
    parts = urlsplit(own_redis.url)
    web = cluster.start_web(redis_url=own_redis.url.replace(parts.password or "", "wrong"))
    cluster.start_worker(redis_url=own_redis.url)
    expected = (200, {"status": "degraded", "reason": "Redis refuses our credentials"})
    eventually(lambda: readiness(web.url) == expected, 40, what="the reason")


def test_fault_of_other_errors_names_no_secret(own_redis: OwnRedis) -> None:
    """/health/ready is public: include no error text of Redis."""
    client = redis_client(own_redis.url)
    for call in (
        lambda: client.eval("return redis.error_reply('NONSENSE secret')", 0),
        lambda: client.lpush("k", "x") and client.get("k"),
    ):
        with pytest.raises(Exception, match=r"NONSENSE|wrong kind") as caught:
            call()
        assert fault_of(caught.value) == "Redis refuses commands"
    client.close()
