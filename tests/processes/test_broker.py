"""Broker on a real Redis: wakes idle workers instead of polling, and loses nothing when a worker or Redis dies."""

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
from runtime.wakeups import ActorWakeupSender
from testkit.servers import OwnRedis, redis_client
from testkit.waiting import eventually
from tests.support.redis_faults import blocked_clients, frozen
from workers.broker import WakingBroker, WakingConsumer

QUEUE = "dispatch"


class Work:
    """Actor that records its messages and can be held."""

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
    """Run a worker in this process and end it without waiting for its actors."""
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
    """Return the consumer from inside Dramatiq's thread."""
    return cast("WakingConsumer", worker.consumers[QUEUE].consumer)


def send(url: str, *numbers: int) -> None:
    broker = WakingBroker(url)
    for number in numbers:
        broker.enqueue(Message(queue_name=QUEUE, actor_name="work", args=(number,), kwargs={}, options={}))
    broker.close()


def left(client: Redis) -> int:
    """Return the number of messages that wait or are being worked on."""
    return int(client.hlen(f"{queue_key(QUEUE)}.msgs"))


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    client = redis_client(redis_url)
    yield client
    client.close()


def test_idle_worker_is_woken_before_its_wait_ends(
    redis_url: str, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.broker.BLOCK_SECONDS", 40)
    monkeypatch.setattr("workers.broker.ANSWER_TIMEOUT", 50)
    work = Work()
    with working(redis_url, work):
        eventually(lambda: blocked_clients(client) == 1)
        send(redis_url, 1)
        eventually(lambda: work.ended == [1])
        eventually(lambda: left(client) == 0)
        # Release it, or it would delay the end of the test.
        client.client_kill_filter(_type="normal", skipme=True)


def test_message_wakes_one_of_several_workers(redis_url: str, client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rely on Redis serving all waiting clients before it answers: the others still wait when the first is back."""
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


def test_message_of_worker_that_died_on_wakeup_is_found_by_another(redis_url: str, client: Redis) -> None:
    """Lose the wake-up with its worker: the others look once a second all the same."""
    send(redis_url, 1)
    assert client.blpop([wakeup_key(QUEUE)], timeout=10)

    work = Work()
    with working(redis_url, work):
        eventually(lambda: work.ended == [1])
        eventually(lambda: left(client) == 0)


def test_wakeup_list_is_no_longer_than_its_queue(client: Redis) -> None:
    """Send wake-ups without any worker."""
    wakeups = ActorWakeupSender(client)
    for _ in range(3):
        wakeups.send(Actor.DISPATCH, Actor.CALLBACKS)
        client.delete(hint_key(Actor.DISPATCH))
    assert client.llen(queue_key(QUEUE)) == 4
    assert client.llen(wakeup_key(QUEUE)) == 4
    client.rpop(queue_key(QUEUE), 4)
    wakeups.send(Actor.DISPATCH)
    assert client.llen(wakeup_key(QUEUE)) == 4


def test_waiting_changes_neither_order_nor_number_of_messages(redis_url: str, client: Redis) -> None:
    """Wait with several workers on one queue: each message goes to one, the rest of the queue stays as it was."""
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


def test_busy_worker_fetches_nothing_until_thread_is_free(redis_url: str, client: Redis) -> None:
    """Leave messages to other workers; an ack makes the worker look at once."""
    work = Work()
    work.gate.clear()
    with working(redis_url, work, threads=2):
        send(redis_url, *range(5))
        eventually(lambda: len(work.begun) == 2)
        assert client.llen(queue_key(QUEUE)) == 3
        work.gate.set()
        eventually(lambda: len(work.ended) == 5)
    assert left(client) == 0


def test_draining_worker_fetches_nothing_and_requeues_unstarted_messages(redis_url: str, client: Redis) -> None:
    """Let another worker take them while the first still works on its last message."""
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
        stopping.join(30)
        assert first.ended == [0]
        assert left(client) == 0


def test_failed_message_is_not_run_again(redis_url: str, client: Redis) -> None:
    """Drop it: a message is a hint, and the periodic pass does the same work."""
    runs: list[int] = []

    def fail(number: int) -> None:
        runs.append(number)
        raise RuntimeError("no")

    with working(redis_url, fail):
        send(redis_url, 1)
        eventually(lambda: runs == [1])
        eventually(lambda: left(client) == 0)
    assert runs == [1]


def test_unreadable_message_stops_nothing(redis_url: str, client: Redis) -> None:
    client.hset(f"{queue_key(QUEUE)}.msgs", "strange", b"\xff{")
    client.rpush(queue_key(QUEUE), "strange", "without-a-body")
    work = Work()
    with working(redis_url, work):
        send(redis_url, 1)
        eventually(lambda: work.ended == [1])


def test_delayed_messages_are_refused(redis_url: str) -> None:
    """Store later work as rows with a time, not as messages."""
    broker = WakingBroker(redis_url)
    message: Message[None] = Message(queue_name=QUEUE, actor_name="work", args=(1,), kwargs={}, options={})

    with pytest.raises(ValueError, match="not delayed"):
        broker.enqueue(message, delay=1000)
    assert broker.get_declared_delay_queues() == set()


@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_worker_survives_redis_crash(own_redis: OwnRedis, way: str) -> None:
    """Reconnect by itself, and acknowledge work finished meanwhile when possible."""
    client = redis_client(own_redis.url)
    # The message must be in Redis's file before the crash.
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


def test_worker_survives_frozen_redis(own_redis: OwnRedis) -> None:
    """Treat a late answer as a lost connection, in the consumer and in an ack."""
    work = Work()
    work.gate.clear()
    with working(own_redis.url, work) as worker:
        send(own_redis.url, 1)
        eventually(lambda: work.begun == [1])
        with frozen(own_redis):
            work.gate.set()
            eventually(lambda: consumer_of(worker)._redis_away)
            eventually(lambda: worker.work_queue.unfinished_tasks == 0)
        client = redis_client(own_redis.url)
        eventually(lambda: not consumer_of(worker)._redis_away)
        eventually(lambda: left(client) == 0)
        send(own_redis.url, 2)
        eventually(lambda: work.ended == [1, 2])


def test_worker_survives_flushed_redis(redis_url: str, client: Redis) -> None:
    """Lose queues, marks and heartbeats; the next message works like the first."""
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


def test_messages_of_dead_worker_go_to_another(redis_url: str, client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requeue within seconds."""
    monkeypatch.setattr("workers.broker.MAINTENANCE_SECONDS", 0.1)
    dead = WakingBroker(redis_url, dead_after=1)
    send(redis_url, 1)
    assert dead.do_fetch(QUEUE, 1)
    assert client.llen(queue_key(QUEUE)) == 0

    work = Work()
    with working(redis_url, work, dead_after=1):
        eventually(lambda: work.ended == [1])
        eventually(lambda: left(client) == 0)


def test_busy_worker_is_not_taken_for_dead(redis_url: str, client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send heartbeats from the consumer while threads work, also during a drain."""
    monkeypatch.setattr("workers.broker.MAINTENANCE_SECONDS", 0.1)
    busy, other = Work(), Work()
    busy.gate.clear()
    with working(redis_url, busy, threads=1, dead_after=2) as worker:
        send(redis_url, 1)
        eventually(lambda: busy.begun == [1])
        broker = broker_of(worker)
        broker.draining = True
        since = time.time()
        own_id = broker.broker_id
        with working(redis_url, other, dead_after=2):
            # It still sends heartbeats two lifetimes later, and the other worker, which cleans up all the time, has not
            # taken its message.
            beats = f"{broker.namespace}:__heartbeats__"
            eventually(lambda: (client.zscore(beats, own_id) or 0) / 1000 > since + 5)
            assert not other.begun
            busy.gate.set()
            eventually(lambda: left(client) == 0)
    assert busy.ended == [1]
    assert not other.begun


def test_redis_outage_makes_no_worker_dead(own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grant every worker time to send a heartbeat after the outage made all of them old."""
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
        client = redis_client(own_redis.url)
        with frozen(own_redis):
            eventually(lambda: all(consumer._redis_away for consumer in consumers))
        eventually(lambda: not any(consumer._redis_away for consumer in consumers))
        back = time.time()
        beats = f"{broker_of(first).namespace}:__heartbeats__"
        ids = [broker_of(worker).broker_id for worker in (first, second)]
        eventually(lambda: all((client.zscore(beats, each) or 0) / 1000 > back + 3 for each in ids))
        assert client.llen(queue_key(QUEUE)) == 0
        busy.gate.set()
        other.gate.set()
        eventually(lambda: left(client) == 0)
        assert sorted(busy.ended + other.ended) == [1, 2]
