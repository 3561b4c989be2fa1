"""Dramatiq on Redis, woken instead of polling: a message starts within milliseconds, a killed worker's within seconds.

The stock consumer sleeps up to a second when idle, leaves a killed worker's messages lying for minutes, takes a late
answer for a bug of its own and goes on fetching while its worker drains.
"""

import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

from dramatiq import Broker as AnyBroker
from dramatiq import DecodeError, Message, MessageProxy, Middleware, Worker
from dramatiq.broker import Consumer
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import iter_queue
from dramatiq.middleware import AgeLimit, Retries

from runtime.logs import log
from runtime.names import NAMESPACE, wakeup_key
from runtime.redis_client import FAILED, fault_of, sync_client

logger = log(__name__)

# Drop old messages: the ticker repeats what they ask for. Longer than clocks are apart.
MAX_AGE_MILLISECONDS: Final = 60_000
DEAD_MESSAGE_MILLISECONDS: Final = 600_000
# Declare a worker dead after so long without a command; it sends one every BLOCK_SECONDS at least.
DEAD_AFTER_SECONDS: Final = 15.0
MAINTENANCE_SECONDS: Final = 5.0
BLOCK_SECONDS: Final = 1
ANSWER_TIMEOUT: Final = 3.0
STALLED_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.5


class WakingBroker(RedisBroker):
    def __init__(self, url: str, *, dead_after: float = DEAD_AFTER_SECONDS) -> None:
        super().__init__(  # type: ignore[no-untyped-call]  # dramatiq annotates no broker
            # No retry: the answer of a repeated fetch hides that the first one took messages too.
            client=sync_client(url, answer_timeout=ANSWER_TIMEOUT, retries=0),
            namespace=NAMESPACE,
            middleware=[AgeLimit(max_age=MAX_AGE_MILLISECONDS), Retries(max_retries=0), _Drain()],
            heartbeat_timeout=int(dead_after * 1000),
            dead_message_ttl=DEAD_MESSAGE_MILLISECONDS,
        )
        self.draining = False
        self._maintenance = threading.local()
        self._grace_until = 0.0
        self.postpone_maintenance()

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Return a consumer of one queue. `timeout`, Dramatiq's idle sleep, has no meaning here."""
        del timeout
        return WakingConsumer(self, queue_name, prefetch)

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue without Dramatiq's delay queue and the thread and connection that it costs."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueue a hint. Raises ValueError for a delayed one: work that is due later is a row with a time in it."""
        if delay is not None:
            raise ValueError("hints are not delayed")
        enqueued = super().enqueue(message)
        self.wake(message.queue_name)
        return enqueued

    def close(self) -> None:
        """Close the idle connections; a thread that still waits in Redis keeps its own until it ends."""
        self.client.connection_pool.disconnect(inuse_connections=False)

    def wait(self, queue_name: str) -> None:
        with self._watch_for_stalls(BLOCK_SECONDS + STALLED_SECONDS):
            self.client.blpop([wakeup_key(queue_name)], timeout=BLOCK_SECONDS)

    def wake(self, queue_name: str, consumers: int = 1) -> None:
        self.client.rpush(wakeup_key(queue_name), *[b""] * consumers)

    def postpone_maintenance(self) -> None:
        """Declare no worker dead before all had time for a command.

        Called after our start, which may be Redis's too, and after a command that stalled, since all workers stalled
        with it.
        """
        self._grace_until = time.monotonic() + self.heartbeat_timeout / 1000

    @contextmanager
    def _watch_for_stalls(self, seconds: float) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        except FAILED:
            self.postpone_maintenance()
            raise
        if time.monotonic() - began > seconds:
            self.postpone_maintenance()

    def _dispatch(self, command: str) -> Callable[..., Any]:
        send = super()._dispatch(command)  # type: ignore[no-untyped-call]  # dramatiq annotates no broker

        def timed(queue_name: str, *args: Any) -> Any:
            with self._watch_for_stalls(STALLED_SECONDS):
                return send(queue_name, *args)

        return timed

    def _max_unpack_size(self) -> int:
        """Return 1000 without asking Redis, which may be away when we start; Lua's own limit is 8000."""
        return 1000

    def _should_do_maintenance(self, command: str) -> int:
        """Ask for maintenance with a fetch, about every 5 s and queue by queue, hence per consumer thread."""
        now = time.monotonic()
        if command != "fetch" or now < self._grace_until or now < getattr(self._maintenance, "due", 0.0):
            return 0
        self._maintenance.due = now + MAINTENANCE_SECONDS * random.uniform(0.8, 1.2)
        return 1


class WakingConsumer(Consumer):
    """Consumer of one queue. Iterated by its own thread; acknowledged by worker threads."""

    def __init__(self, broker: WakingBroker, queue_name: str, prefetch: int) -> None:
        self._broker = broker
        self._queue = queue_name
        self._prefetch = prefetch
        self._fetched: deque[bytes | None] = deque()
        self._in_hand: set[str] = set()
        self._unacknowledged: deque[tuple[str, str]] = deque()
        self._freed = threading.Event()
        self._redis_away = False

    def __next__(self) -> MessageProxy | None:
        try:
            if not self._fetched:
                self._refill()
            self._mark_available()
        except FAILED as error:
            self._mark_away(error)
            return None
        return self._next_message()

    def ack(self, message: MessageProxy) -> None:
        self._acknowledge("ack", message)

    def nack(self, message: MessageProxy) -> None:
        """Move the message to the dead ones; later, when Redis does not answer now."""
        self._acknowledge("nack", message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Put back messages that were not started. When Redis does not answer, another worker's maintenance does it."""
        ids = [message.options["redis_message_id"] for message in messages]
        if not ids:
            return
        try:
            self._broker.do_requeue(self._queue, *ids)
            self._broker.wake(self._queue, len(ids))
        except FAILED as error:
            logger.warning(
                "messages not requeued; left to maintenance", queue=self._queue, count=len(ids), error=str(error)
            )
        self._in_hand.difference_update(ids)
        self._freed.set()

    def _refill(self) -> None:
        """Wait for a message, or while the prefetch is used up for an ack, then fetch as many as it allows."""
        self._freed.clear()
        while self._unacknowledged:
            command, message_id = self._unacknowledged[0]
            self._send(command, message_id)
            self._unacknowledged.popleft()
        if self._free_prefetch():
            self._broker.wait(self._queue)
        else:
            self._freed.wait(BLOCK_SECONDS)
        # Fetch even if it allows none: the command is the sign of life that keeps our messages ours.
        self._fetched.extend(self._broker.do_fetch(self._queue, self._free_prefetch()))

    def _free_prefetch(self) -> int:
        return 0 if self._broker.draining else max(self._prefetch - len(self._in_hand), 0)

    def _next_message(self) -> MessageProxy | None:
        while self._fetched:
            data = self._fetched.popleft()
            if data is None:
                continue
            try:
                message: Message[Any] = Message.decode(data)
                self._in_hand.add(message.options["redis_message_id"])
            except (DecodeError, KeyError):
                logger.exception("message unreadable", queue=self._queue)
                continue
            return MessageProxy(message)
        return None

    def _acknowledge(self, command: str, message: MessageProxy) -> None:
        message_id = message.options["redis_message_id"]
        try:
            if self._redis_away:
                self._unacknowledged.append((command, message_id))
            else:
                self._send(command, message_id)
        except FAILED:
            # Do not raise: Dramatiq would keep this worker thread in five-second sleeps until Redis is back.
            self._unacknowledged.append((command, message_id))
        finally:
            self._in_hand.discard(message_id)
            self._freed.set()

    def _send(self, command: str, message_id: str) -> None:
        if command == "ack":
            self._broker.do_ack(self._queue, message_id)
        else:
            self._broker.do_nack(self._queue, message_id)

    def _mark_away(self, error: BaseException) -> None:
        """Stay while Redis is away, and try again soon. Raising would cost three seconds after its return."""
        if not self._redis_away:
            logger.warning("Redis away; fetch is retried", queue=self._queue, fault=fault_of(error), error=str(error))
        self._redis_away = True
        time.sleep(RETRY_SECONDS * random.uniform(0.5, 1))

    def _mark_available(self) -> None:
        if self._redis_away:
            logger.warning("Redis answers again", queue=self._queue)
        self._redis_away = False


class _Drain(Middleware):
    """Stops fetching at shutdown and gives back messages that were not started, so that other workers run them now."""

    def before_worker_shutdown(self, broker: AnyBroker, worker: Worker) -> None:
        cast("WakingBroker", broker).draining = True
        unstarted: defaultdict[str, list[MessageProxy]] = defaultdict(list)
        for item in iter_queue(worker.work_queue):  # type: ignore[no-untyped-call]  # dramatiq annotates it not
            unstarted[item.message.queue_name].append(item.message)
        for queue_name, messages in unstarted.items():
            worker.consumers[queue_name].requeue_messages(messages)
