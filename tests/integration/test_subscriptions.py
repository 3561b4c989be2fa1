"""Subscription of a web process on a real Redis that is killed, frozen and flushed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial

import pytest
from redis import Redis

from runtime.names import assignments_channel
from runtime.pubsub import FIRST_BACKOFF, MessageHandlers, Subscription, publish_assignments, publish_head
from runtime.redis_client import FAILED, sync_client
from runtime.settings import Settings
from testkit.ports import own_port
from testkit.servers import OwnRedis
from testkit.waiting import eventually_async
from tests.support.redis_faults import frozen

ASSIGNMENT = {"poll_id": "p", "run_id": "run_1", "claim_token": "t"}


class Heard:
    """Messages that a subscription has delivered so far."""

    subscription: Subscription

    def __init__(self) -> None:
        self.assignments: list[dict[str, str]] = []
        self.heads: list[int] = []
        self.rechecks: list[str] = []
        self.confirmations = 0

    def handlers(self) -> MessageHandlers:
        return MessageHandlers(
            self.assignments.extend, self.heads.append, self.rechecks.extend, lambda _: None, self.confirm
        )

    def confirm(self) -> None:
        self.confirmations += 1

    async def confirmed(self, times: int) -> bool:
        return self.confirmations >= times

    async def gave_up(self) -> bool:
        return self.subscription._backoff > FIRST_BACKOFF

    async def got(self, times: int) -> bool:
        return len(self.assignments) >= times


@asynccontextmanager
async def opened(url: str, instance: str = "web-1") -> AsyncIterator[Heard]:
    heard = Heard()
    subscription = Subscription(Settings(redis_url=url), instance, heard.handlers())
    heard.subscription = subscription
    await subscription.start()
    try:
        yield heard
    finally:
        await subscription.stop()


async def test_every_instance_gets_newest_feed_position(redis_url: str) -> None:
    """Publish once for all, beside the messages of each instance."""
    async with opened(redis_url, "web-1") as first, opened(redis_url, "web-2") as second:
        await eventually_async(lambda: first.confirmed(1))
        await eventually_async(lambda: second.confirmed(1))
        with closing(sync_client(redis_url)) as client:
            publish_head(client, 7)
        for heard in (first, second):
            await eventually_async(partial(_heads, heard, [7]))
    assert (first.assignments, second.assignments) == ([], [])


async def _heads(heard: Heard, expected: list[int]) -> bool:
    return heard.heads == expected


async def test_each_instance_gets_its_own_assignments_only(redis_url: str) -> None:
    """Put the instance into the channel; one publication may concern many."""
    async with opened(redis_url, "web-1") as first, opened(redis_url, "web-2") as second:
        await eventually_async(lambda: first.confirmed(1))
        await eventually_async(lambda: second.confirmed(1))

        publish_assignments(
            sync_client(redis_url), {"web-1": [ASSIGNMENT, ASSIGNMENT], "web-2": [ASSIGNMENT], "gone": [ASSIGNMENT]}
        )

        await eventually_async(lambda: first.got(2))
        await eventually_async(lambda: second.got(1))
        assert first.assignments == [ASSIGNMENT, ASSIGNMENT]
        assert second.assignments == [ASSIGNMENT]


async def test_empty_dispatch_publishes_nothing() -> None:
    """Need no Redis for it."""
    publish_assignments(sync_client(f"redis://127.0.0.1:{own_port()}/0"), {})


async def test_publisher_logs_that_redis_is_away() -> None:
    with pytest.raises(FAILED):
        publish_assignments(sync_client(f"redis://127.0.0.1:{own_port()}/0"), {"web-1": [ASSIGNMENT]})


async def test_every_new_subscription_is_reported(redis_url: str) -> None:
    """Report it, since messages published before it are lost and redis-py itself gives no sign."""
    client = sync_client(redis_url)
    async with opened(redis_url) as heard:
        for times in (1, 2, 3):
            await eventually_async(partial(heard.confirmed, times))
            client.client_kill_filter(_type="pubsub")
        await eventually_async(lambda: heard.confirmed(4))

        publish_assignments(client, {"web-1": [ASSIGNMENT]})
        await eventually_async(lambda: heard.got(1))


async def test_subscription_opened_without_redis_starts_when_it_comes(own_redis: OwnRedis) -> None:
    """Start and serve a web process without Redis."""
    own_redis.stop()
    async with opened(own_redis.url) as heard:
        own_redis.start()
        await eventually_async(lambda: heard.confirmed(1))
        publish_assignments(sync_client(own_redis.url), {"web-1": [ASSIGNMENT]})
        await eventually_async(lambda: heard.got(1))


async def test_subscription_survives_killed_redis(own_redis: OwnRedis) -> None:
    """Subscribe again to the next one at the same address."""
    async with opened(own_redis.url) as heard:
        await eventually_async(lambda: heard.confirmed(1))
        own_redis.kill()
        own_redis.start()
        await eventually_async(lambda: heard.confirmed(2))
        publish_assignments(sync_client(own_redis.url), {"web-1": [ASSIGNMENT]})
        await eventually_async(lambda: heard.got(1))


async def test_frozen_redis_is_given_up(own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice missing answers to pings; a later confirmation reports that messages may be missing."""
    monkeypatch.setattr("runtime.pubsub.QUIET", 0.2)
    monkeypatch.setattr("runtime.pubsub.PATIENCE", 0.3)
    async with opened(own_redis.url) as heard:
        await eventually_async(lambda: heard.confirmed(1))
        client = sync_client(own_redis.url)
        subscribed = client.client_list(_type="pubsub")[0]["id"]
        with frozen(own_redis):
            await eventually_async(heard.gave_up)
        await eventually_async(lambda: heard.confirmed(2))
        assert all(entry["id"] != subscribed for entry in client.client_list(_type="pubsub"))


async def test_quiet_subscription_is_kept(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Report nothing while pings are answered."""
    monkeypatch.setattr("runtime.pubsub.QUIET", 0.02)
    client = sync_client(redis_url)
    async with opened(redis_url) as heard:
        await eventually_async(lambda: heard.confirmed(1))
        before = client.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"]
        await eventually_async(lambda: _pings(client, before + 5))

        publish_assignments(client, {"web-1": [ASSIGNMENT]})
        await eventually_async(lambda: heard.got(1))
        assert heard.confirmations == 1


async def _pings(client: Redis, wanted: int) -> bool:
    return bool(client.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"] >= wanted)


@pytest.mark.parametrize("payload", [b"", b"{", b"null", b'"text"', b"[1]", b"\xff"])
async def test_malformed_message_is_skipped(redis_url: str, payload: bytes) -> None:
    client = sync_client(redis_url)
    async with opened(redis_url) as heard:
        await eventually_async(lambda: heard.confirmed(1))

        client.publish(assignments_channel("web-1"), payload)
        publish_assignments(client, {"web-1": [ASSIGNMENT]})

        await eventually_async(lambda: heard.got(1))
        assert heard.assignments == [ASSIGNMENT]


async def test_failing_handler_ends_nothing(redis_url: str) -> None:
    """Handle the next message."""
    heard = Heard()

    def fail_once(assignments: list[dict[str, str]]) -> None:
        heard.assignments.extend(assignments)
        if len(heard.assignments) == 1:
            raise RuntimeError("once")

    handlers = MessageHandlers(fail_once, heard.heads.append, heard.rechecks.extend, lambda _: None, heard.confirm)
    subscription = Subscription(Settings(redis_url=redis_url), "web-1", handlers)
    await subscription.start()
    await eventually_async(lambda: heard.confirmed(1))
    for _ in range(2):
        publish_assignments(sync_client(redis_url), {"web-1": [ASSIGNMENT]})
    await eventually_async(lambda: heard.got(2))
    await subscription.stop()
