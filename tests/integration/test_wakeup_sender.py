"""Wake-ups through a real Redis: coalesced per actor, and harmless when Redis is away."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import pytest
from dramatiq import Message
from redis import Redis

from runtime.names import QUEUE_OF, Actor, hint_key, queue_key, stored_queue
from runtime.redis_client import FAILED, sync_client
from runtime.settings import Settings
from runtime.wakeups import HINT_SECONDS, MAX_WAITING_HINTS, ActorWakeups, ActorWakeupSender
from testkit.ports import own_port
from testkit.servers import OwnRedis, redis_client
from testkit.waiting import eventually_async
from tests.support.redis_faults import frozen
from workers.broker import MAX_AGE_MILLISECONDS


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    client = redis_client(redis_url)
    yield client
    client.close()


def waiting(client: Redis, actor: Actor) -> list[Message[None]]:
    """Return the messages in the actor's queue that are for it."""
    key = queue_key(QUEUE_OF[actor])
    ids = client.lrange(key, 0, -1)
    messages = [Message.decode(cast("bytes", data)) for data in client.hmget(f"{key}.msgs", ids) if data] if ids else []
    return [message for message in messages if message.actor_name == actor]


def settings_of(url: str) -> Settings:
    return Settings(redis_url=url)


@asynccontextmanager
async def started(url: str) -> AsyncIterator[ActorWakeups]:
    wakeups = ActorWakeups(settings_of(url))
    await wakeups.start()
    try:
        yield wakeups
    finally:
        await wakeups.stop()


@pytest.mark.parametrize("actor", Actor)
def test_wakeup_becomes_message_for_actor_of_that_name(client: Redis, actor: Actor) -> None:
    """Enqueue by name and without arguments: the sender imports no actor."""
    assert ActorWakeupSender(client).send(actor)

    (message,) = waiting(client, actor)
    assert (message.queue_name, message.args, message.kwargs) == (stored_queue(actor), (), {})


def fetch(client: Redis, actor: Actor) -> None:
    """Remove the first id from the queue, as a worker's fetch does."""
    assert client.lpop(queue_key(QUEUE_OF[actor]))


def test_one_round_trip_wakes_several_actors(client: Redis) -> None:
    """Send both wake-ups of a commit with work and events together, without those still waiting."""
    wakeups = ActorWakeupSender(client)
    wakeups.send(Actor.DISPATCH)

    assert wakeups.send(Actor.DISPATCH, Actor.BROADCAST, Actor.CALLBACKS) == {Actor.BROADCAST, Actor.CALLBACKS}
    assert [len(waiting(client, actor)) for actor in (Actor.DISPATCH, Actor.BROADCAST, Actor.CALLBACKS)] == [1, 1, 1]


def test_wakeups_add_nothing_while_one_waits(client: Redis) -> None:
    """Coalesce many submissions into one pass, which has not read anything yet."""
    wakeups = ActorWakeupSender(client)
    assert wakeups.send(Actor.DISPATCH)

    assert not any(wakeups.notify(Actor.DISPATCH) for _ in range(20))
    assert len(waiting(client, Actor.DISPATCH)) == 1


def test_wakeup_after_fetch_is_enqueued(client: Redis) -> None:
    """Send again once the message was fetched: the actor's first read may miss this commit.

    Another actor's message in the queue changes nothing.
    """
    wakeups = ActorWakeupSender(client)
    assert wakeups.send(Actor.DISPATCH)
    assert wakeups.send(Actor.CALLBACKS)

    fetch(client, Actor.DISPATCH)

    assert wakeups.send(Actor.DISPATCH)
    assert not wakeups.send(Actor.CALLBACKS)


def test_unfetched_message_suppresses_wakeups_for_limited_time(client: Redis) -> None:
    """Enqueue a younger message within a minute, since workers drop older ones."""
    assert ActorWakeupSender(client).send(Actor.DISPATCH)

    assert 0 < client.ttl(hint_key(Actor.DISPATCH)) <= HINT_SECONDS < MAX_AGE_MILLISECONDS / 1000


def test_wakeups_work_after_redis_lost_everything_and_its_script(client: Redis) -> None:
    wakeups = ActorWakeupSender(client)
    assert wakeups.send(Actor.DISPATCH)
    client.flushdb()
    client.script_flush()

    assert wakeups.send(Actor.DISPATCH)


def test_wakeups_do_not_pile_up_without_workers(client: Redis) -> None:
    """Allow hours of submissions before a worker starts."""
    wakeups = ActorWakeupSender(client)
    for _ in range(MAX_WAITING_HINTS + 20):
        client.delete(hint_key(Actor.DISPATCH))
        wakeups.notify(Actor.DISPATCH)

    assert len(waiting(client, Actor.DISPATCH)) == MAX_WAITING_HINTS


def test_wakeup_from_thread_never_raises_and_pauses_after_failure() -> None:
    """Skip Redis for a while, so that a worker does not pay the timeout each time."""
    wakeups = ActorWakeupSender(sync_client(f"redis://127.0.0.1:{own_port()}/0"))

    assert not wakeups.notify(Actor.DISPATCH)
    assert not wakeups.notify(Actor.DISPATCH)
    with pytest.raises(FAILED):
        wakeups.send(Actor.DISPATCH)


async def test_concurrent_wakeups_of_web_reach_redis_in_one_round_trip(client: Redis, redis_url: str) -> None:
    async with started(redis_url) as wakeups:
        for actor in Actor:
            wakeups.notify(actor)
        for actor in Actor:
            await eventually_async(partial(_any, client, actor))


async def _any(client: Redis, actor: Actor) -> bool:
    return bool(waiting(client, actor))


async def test_wakeup_of_web_neither_waits_nor_fails_without_redis() -> None:
    """Set a flag only; a background task sends."""
    async with started(f"redis://127.0.0.1:{own_port()}/0") as wakeups:
        for _ in range(1000):
            wakeups.notify(Actor.DISPATCH)
        # The second sender's wake-up must find its task alive after the first failure.
        await eventually_async(lambda: _taken(wakeups))
        wakeups.notify(Actor.DISPATCH)
        assert wakeups._task is not None
        assert not wakeups._task.done()


async def _taken(wakeups: ActorWakeups) -> bool:
    return not wakeups._marked


async def test_one_send_is_in_flight_however_many_wakeups_arrive(own_redis: OwnRedis) -> None:
    """Hold one thread on a frozen Redis, not one per request; one message follows it."""
    async with started(own_redis.url) as wakeups:
        client = redis_client(own_redis.url)
        wakeups.notify(Actor.DISPATCH)
        await eventually_async(lambda: _any(client, Actor.DISPATCH))
        with frozen(own_redis):
            for _ in range(500):
                wakeups.notify(Actor.DISPATCH)
            await eventually_async(lambda: _taken(wakeups))
            threads = [thread for thread in threading.enumerate() if thread.name.startswith("wake-ups")]
            assert len(threads) == 1
        await eventually_async(lambda: _answers(client))
        client.flushall()
        wakeups.notify(Actor.DISPATCH)
        await eventually_async(lambda: _any(client, Actor.DISPATCH))
        assert len(waiting(client, Actor.DISPATCH)) == 1
        client.close()


async def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except FAILED:
        return False


async def test_next_wakeup_of_an_actor_follows_after_the_interval(
    client: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Send the first at once and the next later; those of other actors do not wait for it."""

    async def is_sent(actor: Actor) -> bool:
        return len(waiting(client, actor)) == 1

    async with started(redis_url) as wakeups:
        monkeypatch.setattr(wakeups, "_interval", 3600.0)
        wakeups.notify(Actor.DISPATCH)
        await eventually_async(partial(is_sent, Actor.DISPATCH))
        fetch(client, Actor.DISPATCH)
        wakeups.notify(Actor.DISPATCH)
        wakeups.notify(Actor.BROADCAST)
        await eventually_async(partial(is_sent, Actor.BROADCAST))
        assert not waiting(client, Actor.DISPATCH)
        monkeypatch.setattr(wakeups, "_interval", 0.01)
        wakeups._next_at.clear()
        wakeups.notify(Actor.CALLBACKS)
        await eventually_async(partial(is_sent, Actor.DISPATCH))
        fetch(client, Actor.DISPATCH)
        wakeups.notify(Actor.DISPATCH)
        await eventually_async(partial(is_sent, Actor.DISPATCH))
