"""One worker process: Dramatiq's threads and the ticker, from start to SIGTERM."""

import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

import dramatiq

from runtime.logs import log
from runtime.names import Queue
from runtime.settings import Settings
from workers.actors import declare_actors
from workers.broker import WakingBroker
from workers.context import worker_context
from workers.duties import duties_of
from workers.schema import wait_for_schema
from workers.ticks import Ticker

logger = log(__name__)

# How soon an idle thread notices that it shall end; work wakes it at once.
LOOK_UP_MILLISECONDS: Final = 250
# What is begun when everybody ends (SIGINT): it is a hint with a sweep behind it, or a transaction that rolls back.
HURRIED_SECONDS: Final = 3.0


def run(
    settings: Settings,
    *,
    queues: Sequence[str] = (),
    threads: int | None = None,
    tell_ready: Callable[[], None] = lambda: None,
) -> int:
    """Work on `queues` (none named: all) with `threads` threads until SIGTERM, then fetch nothing more, give back what
    is not begun, finish the rest within `worker_grace_seconds` (SIGINT: HURRIED_SECONDS at most) and return 0. Needs
    neither Postgres nor Redis to start, but fetches nothing before there is a schema that it can serve; then
    `tell_ready` is called.

    Raises ValueError for a queue that does not exist. From the main thread only.
    """
    settings.need_servers()
    wanted = {Queue(queue) for queue in queues} or set(Queue)
    size = threads or settings.worker_threads
    broker = WakingBroker(settings.redis_url)
    with _told_to_stop() as wait_for_signal, worker_context(settings, threads=size) as context:
        duties = duties_of(context)
        declare_actors(broker, duties)
        if not wait_for_schema(context.engine, wait_for_signal):
            broker.close()
            logger.info("worker has ended")
            return 0
        worker = dramatiq.Worker(
            broker, queues={str(queue) for queue in wanted}, worker_threads=size, worker_timeout=LOOK_UP_MILLISECONDS
        )
        # In progress included. More than there are threads would only wait here instead of in another process.
        worker.queue_prefetch = size
        worker.start()
        ticker = Ticker(settings.redis_url, duties)
        ticker.start()
        logger.info("worker is ready", queues=sorted(wanted), threads=size)
        tell_ready()
        grace = settings.worker_grace_seconds
        if wait_for_signal(None) == signal.SIGINT:
            grace = min(grace, HURRIED_SECONDS)
        logger.info("worker drains", seconds=grace)
        ticker.stop(0)
        worker.stop(timeout=int(grace * 1000))
        ticker.stop(1)
        broker.close()
    logger.info("worker has ended")
    return 0


@contextmanager
def _told_to_stop() -> Iterator[Callable[[float | None], int | None]]:
    """Catch SIGTERM and SIGINT; what is given blocks until one came and returns which, or None after so many seconds.

    Through a pipe: an Event set by a handler while this thread takes the Event's lock would wait for itself.
    """
    reading, writing = os.pipe()

    def tell(number: int, _frame: FrameType | None) -> None:
        os.write(writing, bytes([number]))

    def wait(within: float | None) -> int | None:
        came, _, _ = select.select([reading], [], [], within)
        return os.read(reading, 1)[0] if came else None

    former = {number: signal.signal(number, tell) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield wait
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)
