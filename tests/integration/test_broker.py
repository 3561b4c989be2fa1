"""The broker against a real Redis: woken, not polling; nothing lost that a worker or Redis can lose."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import cast

import dramatiq
import pytest
from dramatiq import Message, Worker
from redis import Redis

from runtime.names import Actor, hint_key, queue_key, wakeup_key
from runtime.wakeups import WakeupSender
from tests.support.redis_faults import blocked_clients, frozen
from tests.support.servers import OwnRedis, looking
from tests.support.waiting import eventually
from workers.broker import WakingBroker, WakingConsumer

QUEUE = "dispatch"


class Work:
    """An actor that notes what it was given and can be held."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, number: int) -> None:
        self.begun.append(number)
        self.gate.wait(30)
        self.ended.append(number)


@contextmanager
def working(url: str, work: Callable[[int], None], *, threads: int = 2, dead_after: float = 15) -> Iterator[Worker]:
    """A worker in this process. Ends without asking its actors."""
    broker = WakingBroker(url, dead_after=dead_after)
    declare = dramatiq.actor(actor_name="work", queue_name=QUEUE, broker=broker, max_retries=0)
    declare(work)
    worker = Worker(broker, worker_threads=threads, worker_timeout=100)
    worker.queue_prefetch = threads
    worker.start()
    try:
        yield worker
    finally:
        worker.stop(timeout=2000)
        broker.close()


def broker_of(worker: Worker) -> WakingBroker:
    return cast("WakingBroker", worker.broker)


def consumer_of(worker: Worker) -> WakingConsumer:
    """Our consumer, inside of Dramatiq's thread."""
    return cast("WakingConsumer", worker.consumers[QUEUE].consumer)


def send(url: str, *numbers: int) -> None:
    broker = WakingBroker(url)
    for number in numbers:
        broker.enqueue(Message(queue_name=QUEUE, actor_name="work", args=(number,), kwargs={}, options={}))
    broker.close()


def left(client: Redis) -> int:
    """Messages that are waiting or in somebody's hands."""
    return int(client.hlen(f"{queue_key(QUEUE)}.msgs"))


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    client = looking(redis_url)
    yield client
    client.close()


def test_an_idle_worker_is_woken_by_a_message(redis_url: str, client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits in Redis; were it to look again only after its wait, this test would run out of time."""
    monkeypatch.setattr("workers.broker.BLOCK_SECONDS", 40)
    monkeypatch.setattr("workers.broker.ANSWER_TIMEOUT", 50)
    work = Work()
    with working(redis_url, work):
        eventually(lambda: blocked_clients(client) == 1)
        send(redis_url, 1)
        eventually(lambda: work.ended == [1])
        eventually(lambda: left(client) == 0)
        # Let it go, or it would keep this test waiting.
        client.client_kill_filter(_type="normal", skipme=True)


def test_a_message_wakes_one_of_several_workers(redis_url: str, client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis serves all it will serve before it answers anybody: the others still wait when the first one is back."""
    monkeypatch.setattr("workers.broker.BLOCK_SECONDS", 40)
    monkeypatch.setattr("workers.broker.ANSWER_TIMEOUT", 50)
    broker = WakingBroker(redis_url)
    with ThreadPoolExecutor() as threads:
        waits = [threads.submit(broker.wait, QUEUE) for _ in range(3)]
        eventually(lambda: blocked_clients(client) == 3)
        send(redis_url, 1)
        eventually(lambda: any(wait.done() for wait in waits))
        assert blocked_clients(client) == 2
        broker.wake(QUEUE, 2)
        for wait in waits:
            wait.result(30)
    broker.close()


def test_a_message_whose_worker_died_when_it_was_woken_is_found_by_another(redis_url: str, client: Redis) -> None:
    """The bell woke somebody who fetched nothing; whoever waits looks once a second all the same."""
    send(redis_url, 1)
    assert client.blpop([wakeup_key(QUEUE)], timeout=10)

    work = Work()
    with working(redis_url, work):
        eventually(lambda: work.ended == [1])
        eventually(lambda: left(client) == 0)


def test_a_bell_is_no_longer_than_its_queue(client: Redis) -> None:
    """Without any worker clients ring on."""
    wakeups = WakeupSender(client)
    for _ in range(3):
        wakeups.send(Actor.DISPATCH, Actor.CALLBACKS)
        client.delete(hint_key(Actor.DISPATCH))
    assert client.llen(queue_key(QUEUE)) == 4
    assert client.llen(wakeup_key(QUEUE)) == 4
    client.rpop(queue_key(QUEUE), 4)
    wakeups.send(Actor.DISPATCH)
    assert client.llen(wakeup_key(QUEUE)) == 4


def test_waiting_changes_neither_the_order_nor_the_number_of_messages(redis_url: str, client: Redis) -> None:
    """Several workers wait for the same queue; each message goes to one, and the rest of the queue is as it was."""
    work = Work()
    with working(redis_url, work, threads=1), working(redis_url, work, threads=1), working(redis_url, work, threads=1):
        eventually(lambda: blocked_clients(client) == 3)
        work.gate.clear()
        send(redis_url, *range(10))
        eventually(lambda: len(work.begun) == 3)
        assert sorted(work.begun) == [0, 1, 2]
        work.gate.set()
        eventually(lambda: len(work.ended) == 10)
        assert sorted(work.ended) == list(range(10))
        eventually(lambda: left(client) == 0)


def test_a_worker_with_its_hands_full_fetches_no_more_until_one_is_free(redis_url: str, client: Redis) -> None:
    """What it cannot start now another may; an ack makes it look at once."""
    work = Work()
    work.gate.clear()
    with working(redis_url, work, threads=2):
        send(redis_url, *range(5))
        eventually(lambda: len(work.begun) == 2)
        assert client.llen(queue_key(QUEUE)) == 3
        work.gate.set()
        eventually(lambda: len(work.ended) == 5)
    assert left(client) == 0


def test_a_draining_worker_fetches_nothing_and_gives_back_what_it_has_not_begun(redis_url: str, client: Redis) -> None:
    """Another worker gets all of it while the first one still works on its last message."""
    first, second = Work(), Work()
    first.gate.clear()
    with working(redis_url, first, threads=1) as draining:
        draining.consumers[QUEUE].prefetch = 3
        send(redis_url, 0)
        eventually(lambda: first.begun == [0])
        consumer_of(draining)._prefetch = 3
        send(redis_url, 1, 2)
        eventually(lambda: draining.work_queue.qsize() == 2)
        stopping = threading.Thread(target=draining.stop, kwargs={"timeout": 20_000})
        stopping.start()
        eventually(lambda: client.llen(queue_key(QUEUE)) == 2)
        send(redis_url, 3)
        with working(redis_url, second, threads=1):
            eventually(lambda: sorted(second.ended) == [1, 2, 3])
        assert first.begun == [0]
        first.gate.set()
        stopping.join(20)
        assert first.ended == [0]
        assert left(client) == 0


def test_a_message_that_fails_is_not_run_again(redis_url: str, client: Redis) -> None:
    """It was a hint; the sweep behind it comes in any case."""
    runs: list[int] = []

    def fail(number: int) -> None:
        runs.append(number)
        raise RuntimeError("no")

    with working(redis_url, fail):
        send(redis_url, 1)
        eventually(lambda: runs == [1])
        eventually(lambda: left(client) == 0)
    assert runs == [1]


def test_a_message_nobody_can_read_stops_nothing(redis_url: str, client: Redis) -> None:
    """An older or newer version's message, or none of ours."""
    client.hset(f"{queue_key(QUEUE)}.msgs", "strange", b"\xff{")
    client.rpush(queue_key(QUEUE), "strange", "without-a-body")
    work = Work()
    with working(redis_url, work):
        send(redis_url, 1)
        eventually(lambda: work.ended == [1])


def test_delayed_messages_are_refused(redis_url: str) -> None:
    """What is due later is a row with a time in it, not a message."""
    broker = WakingBroker(redis_url)
    message: Message[None] = Message(queue_name=QUEUE, actor_name="work", args=(1,), kwargs={}, options={})

    with pytest.raises(ValueError, match="not delayed"):
        broker.enqueue(message, delay=1000)
    assert broker.get_declared_delay_queues() == set()


@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_a_worker_outlives_redis(own_redis: OwnRedis, way: str) -> None:
    """It begins again by itself, and what it finished meanwhile is struck off when it can be."""
    client = looking(own_redis.url)
    # The message must be in the file when the crash comes.
    client.config_set("appendfsync", "always")
    work = Work()
    work.gate.clear()
    with working(own_redis.url, work):
        send(own_redis.url, 1)
        eventually(lambda: work.begun == [1])
        own_redis.kill() if way == "killed" else own_redis.stop()
        work.gate.set()
        eventually(lambda: work.ended == [1])
        own_redis.start()
        eventually(lambda: left(client) == 0)
        send(own_redis.url, 2)
        eventually(lambda: work.ended == [1, 2])
        eventually(lambda: left(client) == 0)


def test_a_worker_outlives_a_frozen_redis(own_redis: OwnRedis) -> None:
    """A late answer is taken for a lost connection, in the consumer and in an ack."""
    work = Work()
    work.gate.clear()
    with working(own_redis.url, work) as worker:
        send(own_redis.url, 1)
        eventually(lambda: work.begun == [1])
        with frozen(own_redis):
            work.gate.set()
            eventually(lambda: consumer_of(worker)._lost)
            eventually(lambda: worker.work_queue.unfinished_tasks == 0)
        client = looking(own_redis.url)
        eventually(lambda: not consumer_of(worker)._lost)
        eventually(lambda: left(client) == 0)
        send(own_redis.url, 2)
        eventually(lambda: work.ended == [1, 2])


def test_a_worker_outlives_a_flushed_redis(redis_url: str, client: Redis) -> None:
    """Queues, marks and signs of life are gone; the next message is as good as the first."""
    work = Work()
    work.gate.clear()
    with working(redis_url, work):
        send(redis_url, 1)
        eventually(lambda: work.begun == [1])
        client.flushdb()
        client.script_flush()
        work.gate.set()
        eventually(lambda: work.ended == [1])
        send(redis_url, 2)
        eventually(lambda: work.ended == [1, 2])
        eventually(lambda: left(client) == 0)


def test_the_messages_of_a_dead_worker_go_to_another(
    redis_url: str, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within seconds, not when somebody happens to clean up."""
    monkeypatch.setattr("workers.broker.MAINTENANCE_SECONDS", 0.1)
    dead = WakingBroker(redis_url, dead_after=1)
    send(redis_url, 1)
    assert dead.do_fetch(QUEUE, 1)
    assert client.llen(queue_key(QUEUE)) == 0

    work = Work()
    with working(redis_url, work, dead_after=1):
        eventually(lambda: work.ended == [1])
        eventually(lambda: left(client) == 0)


def test_a_worker_busy_for_long_is_not_dead(redis_url: str, client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its consumer gives signs of life while its threads work, also while it drains."""
    monkeypatch.setattr("workers.broker.MAINTENANCE_SECONDS", 0.1)
    busy, other = Work(), Work()
    busy.gate.clear()
    with working(redis_url, busy, threads=1, dead_after=2) as worker:
        send(redis_url, 1)
        eventually(lambda: busy.begun == [1])
        broker = broker_of(worker)
        broker.draining = True
        since = time.time()
        mine = broker.broker_id
        with working(redis_url, other, dead_after=2):
            # Two lives later it still signs, and the other, who cleans up all the time, has not taken its message.
            beats = f"{broker.namespace}:__heartbeats__"
            eventually(lambda: (client.zscore(beats, mine) or 0) / 1000 > since + 5)
            assert not other.begun
            busy.gate.set()
            eventually(lambda: left(client) == 0)
    assert busy.ended == [1]
    assert not other.begun


def test_nobody_is_declared_dead_for_an_outage_of_redis(own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """All signs of life are old after it; everybody gets the time to give another."""
    monkeypatch.setattr("workers.broker.MAINTENANCE_SECONDS", 0.01)
    busy, other = Work(), Work()
    busy.gate.clear()
    other.gate.clear()
    with (
        working(own_redis.url, busy, threads=1, dead_after=2) as first,
        working(own_redis.url, other, threads=1, dead_after=2) as second,
    ):
        consumers = [consumer_of(worker) for worker in (first, second)]
        send(own_redis.url, 1, 2)
        eventually(lambda: len(busy.begun + other.begun) == 2)
        client = looking(own_redis.url)
        with frozen(own_redis):
            eventually(lambda: all(consumer._lost for consumer in consumers), 20)
        eventually(lambda: not any(consumer._lost for consumer in consumers))
        back = time.time()
        beats = f"{broker_of(first).namespace}:__heartbeats__"
        ids = [broker_of(worker).broker_id for worker in (first, second)]
        eventually(lambda: all((client.zscore(beats, each) or 0) / 1000 > back + 3 for each in ids), 20)
        assert client.llen(queue_key(QUEUE)) == 0
        busy.gate.set()
        other.gate.set()
        eventually(lambda: left(client) == 0)
        assert sorted(busy.ended + other.ended) == [1, 2]
