"""Redis connections: bounded waits, few repeats, and an end when their server can no longer serve."""

import time

import pytest
import redis
from redis.exceptions import ReadOnlyError

from runtime.redis_client import FAILED, async_client, sync_client
from testkit.ports import own_port
from testkit.servers import OwnRedis
from tests.support.redis_faults import frozen


def test_frozen_redis_raises_and_its_late_answer_reaches_no_other_call(own_redis: OwnRedis) -> None:
    """Discard the connection with whatever may still arrive on it."""
    client = sync_client(own_redis.url, answer_timeout=0.2)
    client.set("key", "late")
    with frozen(own_redis), pytest.raises(redis.TimeoutError):
        client.get("key")
    assert client.echo("mine") == b"mine"
    client.close()


async def test_frozen_redis_raises_in_event_loop_too(own_redis: OwnRedis) -> None:
    """Block nothing in the loop."""
    client = async_client(own_redis.url, answer_timeout=0.2)
    await client.set("key", "late")
    with frozen(own_redis), pytest.raises(redis.TimeoutError):
        await client.get("key")
    assert await client.echo("mine") == b"mine"
    await client.aclose()


def test_command_with_late_answer_is_not_repeated(own_redis: OwnRedis) -> None:
    """Apply the command although its answer is late: a repeat would apply it twice."""
    client = sync_client(own_redis.url, answer_timeout=0.2)
    client.ping()
    with frozen(own_redis), pytest.raises(redis.TimeoutError):
        client.incr("count")
    assert int(client.get("count") or 0) == 1
    client.close()


def test_connection_lost_while_idle_is_replaced_unnoticed(own_redis: OwnRedis) -> None:
    """Restart Redis; the next command finds the new one."""
    client = sync_client(own_redis.url)
    client.ping()
    own_redis.stop()
    own_redis.start()
    assert client.ping()
    client.close()


def test_connection_to_demoted_primary_is_closed(own_redis: OwnRedis) -> None:
    """Fail over: the address leads elsewhere, the old connection does not."""
    client = sync_client(own_redis.url, retries=0)
    first = client.client_id()
    client.replicaof("127.0.0.1", own_port())
    with pytest.raises(ReadOnlyError):
        client.set("key", "value")
    assert client.client_id() != first
    client.close()


def test_url_options_do_not_extend_timeouts(own_redis: OwnRedis) -> None:
    """Accept a database in the query string, but not a longer time for a hanging request."""
    url = f"{own_redis.url}?socket_timeout=600&health_check_interval=1"
    client = sync_client(url, answer_timeout=0.2)
    client.ping()
    began = time.monotonic()
    with frozen(own_redis), pytest.raises(redis.TimeoutError):
        client.ping()
    assert time.monotonic() - began < 60
    client.close()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{port}/0", "redis://no.such.host.invalid:{port}/0"])
def test_unreachable_redis_raises_one_expected_error_class(url: str) -> None:
    """Refuse the connection, or fail to resolve the name."""
    client = sync_client(url.format(port=own_port()))
    with pytest.raises(FAILED):
        client.ping()
