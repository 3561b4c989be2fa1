"""Connections that end in time, repeat little, and leave a Redis that cannot serve them."""

import time

import pytest
import redis
from redis.exceptions import ReadOnlyError

from runtime.redis_client import FAILED, async_client, sync_client
from tests.support.ports import own_port
from tests.support.redis_faults import frozen
from tests.support.servers import OwnRedis


def test_a_frozen_redis_ends_in_an_error_and_its_late_answer_is_nobody_elses(own_redis: OwnRedis) -> None:
    """The connection that waited is thrown away with whatever may still come on it."""
    client = sync_client(own_redis.url, answer_timeout=0.2)
    client.set("key", "late")
    with frozen(own_redis), pytest.raises(redis.TimeoutError):
        client.get("key")
    assert client.echo("mine") == b"mine"
    client.close()


async def test_the_same_holds_in_an_event_loop(own_redis: OwnRedis) -> None:
    """Nothing of it blocks the loop."""
    client = async_client(own_redis.url, answer_timeout=0.2)
    await client.set("key", "late")
    with frozen(own_redis), pytest.raises(redis.TimeoutError):
        await client.get("key")
    assert await client.echo("mine") == b"mine"
    await client.aclose()


def test_a_command_whose_answer_is_late_is_not_repeated(own_redis: OwnRedis) -> None:
    """It may have been applied, and here it was."""
    client = sync_client(own_redis.url, answer_timeout=0.2)
    client.ping()
    with frozen(own_redis), pytest.raises(redis.TimeoutError):
        client.incr("count")
    assert int(client.get("count") or 0) == 1
    client.close()


def test_a_connection_lost_while_idle_costs_nothing(own_redis: OwnRedis) -> None:
    """Redis was restarted; the first command after it finds the new one."""
    client = sync_client(own_redis.url)
    client.ping()
    own_redis.stop()
    own_redis.start()
    assert client.ping()
    client.close()


def test_a_connection_to_a_former_primary_is_given_up(own_redis: OwnRedis) -> None:
    """After a failover the address leads elsewhere, the old connection does not."""
    client = sync_client(own_redis.url, retries=0)
    first = client.client_id()
    client.replicaof("127.0.0.1", own_port())
    with pytest.raises(ReadOnlyError):
        client.set("key", "value")
    assert client.client_id() != first
    client.close()


def test_what_the_address_asks_for_does_not_lengthen_our_patience(own_redis: OwnRedis) -> None:
    """A query string may choose a database, not how long a request hangs."""
    url = f"{own_redis.url}?socket_timeout=600&health_check_interval=1"
    client = sync_client(url, answer_timeout=0.2)
    client.ping()
    began = time.monotonic()
    with frozen(own_redis), pytest.raises(redis.TimeoutError):
        client.ping()
    assert time.monotonic() - began < 60
    client.close()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{port}/0", "redis://no.such.host.invalid:{port}/0"])
def test_a_redis_that_is_not_there_is_one_of_the_failures_everybody_expects(url: str) -> None:
    """Refused or not resolved, there is one thing to catch."""
    client = sync_client(url.format(port=own_port()))
    with pytest.raises(FAILED):
        client.ping()
