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
from runtime.wakeups import HINT_SECONDS, MAX_WAITING_HINTS, Bells, Ringer
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
async def started(url: str) -> AsyncIterator[Bells]:
    bells = Bells(settings_of(url))
    await bells.start()
    try:
        yield bells
    finally:
        await bells.stop()


@pytest.mark.parametrize("actor", Actor)
def test_a_ring_becomes_a_message_for_the_actor_of_that_name(client: Redis, actor: Actor) -> None:
    """By name and without arguments: whoever rings imports no actor."""
    assert Ringer(client).send(actor)

    (message,) = waiting(client, actor)
    assert (message.queue_name, message.args, message.kwargs) == (QUEUE_OF[actor], (), {})


def fetch(client: Redis, actor: Actor) -> None:
    """What a worker's fetch does to the queue: the first id leaves it."""
    assert client.lpop(queue_key(QUEUE_OF[actor]))


def test_one_round_trip_rings_for_several_actors(client: Redis) -> None:
    """A commit that gives work to do and news to tell rings twice; what waits already is left out."""
    ringer = Ringer(client)
    ringer.send(Actor.DISPATCH)

    assert ringer.send(Actor.DISPATCH, Actor.BROADCAST, Actor.CALLBACKS) == {Actor.BROADCAST, Actor.CALLBACKS}
    assert [len(waiting(client, actor)) for actor in (Actor.DISPATCH, Actor.BROADCAST, Actor.CALLBACKS)] == [1, 1, 1]


def test_rings_while_one_waits_add_nothing(client: Redis) -> None:
    """Many submissions coalesce into one pass, which has not read anything yet."""
    ringer = Ringer(client)
    assert ringer.send(Actor.DISPATCH)

    assert not any(ringer.ring(Actor.DISPATCH) for _ in range(20))
    assert len(waiting(client, Actor.DISPATCH)) == 1


def test_a_ring_after_the_message_was_fetched_goes_through(client: Redis) -> None:
    """Its commit may be one that the actor's first read misses. Another actor's message in the queue says nothing."""
    ringer = Ringer(client)
    assert ringer.send(Actor.DISPATCH)
    assert ringer.send(Actor.CALLBACKS)

    fetch(client, Actor.DISPATCH)

    assert ringer.send(Actor.DISPATCH)
    assert not ringer.send(Actor.CALLBACKS)


def test_a_message_that_nobody_fetches_keeps_others_away_for_a_while_only(client: Redis) -> None:
    """Workers drop what is older than a minute: by then there must be a younger one."""
    assert Ringer(client).send(Actor.DISPATCH)

    assert 0 < client.ttl(hint_key(Actor.DISPATCH)) <= HINT_SECONDS < MAX_AGE_MILLISECONDS / 1000


def test_rings_go_through_after_redis_lost_everything(client: Redis) -> None:
    """The script too."""
    ringer = Ringer(client)
    assert ringer.send(Actor.DISPATCH)
    client.flushdb()
    client.script_flush()

    assert ringer.send(Actor.DISPATCH)


def test_rings_do_not_pile_up_while_no_worker_lives(client: Redis) -> None:
    """Clients may submit for hours before a worker comes."""
    ringer = Ringer(client)
    for _ in range(MAX_WAITING_HINTS + 20):
        client.delete(hint_key(Actor.DISPATCH))
        ringer.ring(Actor.DISPATCH)

    assert len(waiting(client, Actor.DISPATCH)) == MAX_WAITING_HINTS


def test_a_ring_from_a_thread_never_raises_and_rests_after_a_failure() -> None:
    """A worker whose Redis is away goes on; it does not pay the timeout each time."""
    ringer = Ringer(sync_client(f"redis://127.0.0.1:{own_port()}/0"))

    assert not ringer.ring(Actor.DISPATCH)
    assert not ringer.ring(Actor.DISPATCH)
    with pytest.raises(FAILED):
        ringer.send(Actor.DISPATCH)


async def test_a_ring_of_the_web_reaches_redis(client: Redis, redis_url: str) -> None:
    """Those that ring together go together."""
    async with started(redis_url) as bells:
        for actor in Actor:
            bells.ring(actor)
        for actor in Actor:
            await eventually_async(partial(_any, client, actor))


async def _any(client: Redis, actor: Actor) -> bool:
    return bool(waiting(client, actor))


async def test_a_ring_of_the_web_neither_waits_nor_fails_when_redis_is_away() -> None:
    """It only sets a flag; what becomes of it is the task's business."""
    async with started(f"redis://127.0.0.1:{own_port()}/0") as bells:
        for _ in range(1000):
            bells.ring(Actor.DISPATCH)
        # A second bell's ring must find its task alive after the first one's failure.
        await eventually_async(lambda: _taken(bells))
        bells.ring(Actor.DISPATCH)
        assert bells._task is not None
        assert not bells._task.done()


async def _taken(bells: Bells) -> bool:
    return not bells._marked


async def test_one_send_is_in_flight_however_often_it_rings(own_redis: OwnRedis) -> None:
    """A frozen Redis holds one thread, not one per request; after it one message says it all."""
    async with started(own_redis.url) as bells:
        client = looking(own_redis.url)
        bells.ring(Actor.DISPATCH)
        await eventually_async(lambda: _any(client, Actor.DISPATCH))
        with frozen(own_redis):
            for _ in range(500):
                bells.ring(Actor.DISPATCH)
            await eventually_async(lambda: _taken(bells))
            threads = [thread for thread in threading.enumerate() if thread.name.startswith("bell")]
            assert len(threads) == 1
        await eventually_async(lambda: _answers(client))
        client.flushall()
        bells.ring(Actor.DISPATCH)
        await eventually_async(lambda: _any(client, Actor.DISPATCH))
        assert len(waiting(client, Actor.DISPATCH)) == 1
        client.close()


async def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except FAILED:
        return False
