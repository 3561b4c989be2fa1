"""Bells against a real Redis: they wake once, and hurt nobody when they cannot."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import pytest
from dramatiq import Message
from redis import Redis

from runtime.names import QUEUE_OF, Actor, hint_key, queue_key
from runtime.redis_client import FAILED, sync_client
from runtime.settings import Settings
from runtime.wakeups import HINT_SECONDS, MAX_WAITING_HINTS, Wakeups, WakeupSender
from tests.support.ports import own_port
from tests.support.redis_faults import frozen
from tests.support.servers import OwnRedis, looking
from tests.support.waiting import eventually_async
from workers.broker import MAX_AGE_MILLISECONDS


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    client = looking(redis_url)
    yield client
    client.close()


def waiting(client: Redis, actor: Actor) -> list[Message[None]]:
    """The messages in the actor's queue that are for it."""
    key = queue_key(QUEUE_OF[actor])
    ids = client.lrange(key, 0, -1)
    messages = [Message.decode(cast("bytes", data)) for data in client.hmget(f"{key}.msgs", ids) if data] if ids else []
    return [message for message in messages if message.actor_name == actor]


def settings_of(url: str) -> Settings:
    return Settings(redis_url=url)


@asynccontextmanager
async def started(url: str) -> AsyncIterator[Wakeups]:
    wakeups = Wakeups(settings_of(url))
    await wakeups.start()
    try:
        yield wakeups
    finally:
        await wakeups.stop()


@pytest.mark.parametrize("actor", Actor)
def test_a_ring_becomes_a_message_for_the_actor_of_that_name(client: Redis, actor: Actor) -> None:
    """By name and without arguments: whoever rings imports no actor."""
    assert WakeupSender(client).send(actor)

    (message,) = waiting(client, actor)
    assert (message.queue_name, message.args, message.kwargs) == (QUEUE_OF[actor], (), {})


def fetch(client: Redis, actor: Actor) -> None:
    """What a worker's fetch does to the queue: the first id leaves it."""
    assert client.lpop(queue_key(QUEUE_OF[actor]))


def test_one_round_trip_rings_for_several_actors(client: Redis) -> None:
    """A commit that gives work to do and news to tell rings twice; what waits already is left out."""
    wakeups = WakeupSender(client)
    wakeups.send(Actor.DISPATCH)

    assert wakeups.send(Actor.DISPATCH, Actor.BROADCAST, Actor.CALLBACKS) == {Actor.BROADCAST, Actor.CALLBACKS}
    assert [len(waiting(client, actor)) for actor in (Actor.DISPATCH, Actor.BROADCAST, Actor.CALLBACKS)] == [1, 1, 1]


def test_rings_while_one_waits_add_nothing(client: Redis) -> None:
    """Many submissions coalesce into one pass, which has not read anything yet."""
    wakeups = WakeupSender(client)
    assert wakeups.send(Actor.DISPATCH)

    assert not any(wakeups.notify(Actor.DISPATCH) for _ in range(20))
    assert len(waiting(client, Actor.DISPATCH)) == 1


def test_a_ring_after_the_message_was_fetched_goes_through(client: Redis) -> None:
    """Its commit may be one that the actor's first read misses. Another actor's message in the queue says nothing."""
    wakeups = WakeupSender(client)
    assert wakeups.send(Actor.DISPATCH)
    assert wakeups.send(Actor.CALLBACKS)

    fetch(client, Actor.DISPATCH)

    assert wakeups.send(Actor.DISPATCH)
    assert not wakeups.send(Actor.CALLBACKS)


def test_a_message_that_nobody_fetches_keeps_others_away_for_a_while_only(client: Redis) -> None:
    """Workers drop what is older than a minute: by then there must be a younger one."""
    assert WakeupSender(client).send(Actor.DISPATCH)

    assert 0 < client.ttl(hint_key(Actor.DISPATCH)) <= HINT_SECONDS < MAX_AGE_MILLISECONDS / 1000


def test_rings_go_through_after_redis_lost_everything(client: Redis) -> None:
    """The script too."""
    wakeups = WakeupSender(client)
    assert wakeups.send(Actor.DISPATCH)
    client.flushdb()
    client.script_flush()

    assert wakeups.send(Actor.DISPATCH)


def test_rings_do_not_pile_up_while_no_worker_lives(client: Redis) -> None:
    """Clients may submit for hours before a worker comes."""
    wakeups = WakeupSender(client)
    for _ in range(MAX_WAITING_HINTS + 20):
        client.delete(hint_key(Actor.DISPATCH))
        wakeups.notify(Actor.DISPATCH)

    assert len(waiting(client, Actor.DISPATCH)) == MAX_WAITING_HINTS


def test_a_ring_from_a_thread_never_raises_and_rests_after_a_failure() -> None:
    """A worker whose Redis is away goes on; it does not pay the timeout each time."""
    wakeups = WakeupSender(sync_client(f"redis://127.0.0.1:{own_port()}/0"))

    assert not wakeups.notify(Actor.DISPATCH)
    assert not wakeups.notify(Actor.DISPATCH)
    with pytest.raises(FAILED):
        wakeups.send(Actor.DISPATCH)


async def test_a_ring_of_the_web_reaches_redis(client: Redis, redis_url: str) -> None:
    """Those that ring together go together."""
    async with started(redis_url) as wakeups:
        for actor in Actor:
            wakeups.notify(actor)
        for actor in Actor:
            await eventually_async(partial(_any, client, actor))


async def _any(client: Redis, actor: Actor) -> bool:
    return bool(waiting(client, actor))


async def test_a_ring_of_the_web_neither_waits_nor_fails_when_redis_is_away() -> None:
    """It only sets a flag; what becomes of it is the task's business."""
    async with started(f"redis://127.0.0.1:{own_port()}/0") as wakeups:
        for _ in range(1000):
            wakeups.notify(Actor.DISPATCH)
        # A second bell's ring must find its task alive after the first one's failure.
        await eventually_async(lambda: _taken(wakeups))
        wakeups.notify(Actor.DISPATCH)
        assert wakeups._task is not None
        assert not wakeups._task.done()


async def _taken(wakeups: Wakeups) -> bool:
    return not wakeups._marked


async def test_one_send_is_in_flight_however_often_it_rings(own_redis: OwnRedis) -> None:
    """A frozen Redis holds one thread, not one per request; after it one message says it all."""
    async with started(own_redis.url) as wakeups:
        client = looking(own_redis.url)
        wakeups.notify(Actor.DISPATCH)
        await eventually_async(lambda: _any(client, Actor.DISPATCH))
        with frozen(own_redis):
            for _ in range(500):
                wakeups.notify(Actor.DISPATCH)
            await eventually_async(lambda: _taken(wakeups))
            threads = [thread for thread in threading.enumerate() if thread.name.startswith("bell")]
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
