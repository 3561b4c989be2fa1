import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from types import FrameType
from typing import Final

import dramatiq

from runtime.logs import log
from runtime.names import STORED_AS, Queue
from runtime.settings import Settings
from workers.actors import declare_actors
from workers.broker import WakingBroker
from workers.context import worker_context
from workers.duties import duties_of
from workers.process_metrics import ProcessMetrics
from workers.schema import wait_for_schema
from workers.span_export import exporting_spans
from workers.ticks import Ticker
from workers.webhook_sending import sending_webhooks

logger = log(__name__)

# Let an idle thread check for shutdown so often; messages wake it at once.
IDLE_TIMEOUT_MILLISECONDS: Final = 250
# Cut off work that takes longer at SIGINT: it is a hint that the ticker repeats, or a transaction that rolls back.
SIGINT_GRACE_SECONDS: Final = 3.0


def run(
    settings: Settings,
    *,
    queues: Sequence[str] = (),
    threads: int | None = None,
    tell_ready: Callable[[], None] = lambda: None,
    metrics_address: "Future[tuple[str, int]] | None" = None,
) -> int:
    """Run a worker on `queues` (none named: all) with `threads` threads until SIGTERM; return 0.

    At SIGTERM it fetches nothing more, gives back messages that are not started and finishes the rest within
    `worker_grace_seconds` (SIGINT: SIGINT_GRACE_SECONDS at most). It starts without Postgres and Redis, but fetches
    nothing before there is a schema that it can serve; then it calls `tell_ready`. `metrics_address`: the one where it
    serves its metrics, once known.

    Raises ValueError for a queue that does not exist. From the main thread only.
    """
    settings.need_servers()
    wanted = {Queue(queue) for queue in queues} or set(Queue)
    size = threads or settings.worker_threads
    broker = WakingBroker(settings.redis_url)
    with _stop_signals() as wait_for_signal, worker_context(settings, threads=size) as context:
        duties = duties_of(context)
        declare_actors(broker, duties)
        if not wait_for_schema(context.engine, wait_for_signal):
            broker.close()
            logger.info("worker has ended")
            return 0
        worker = dramatiq.Worker(
            broker,
            queues={STORED_AS[queue] for queue in wanted},
            worker_threads=size,
            worker_timeout=IDLE_TIMEOUT_MILLISECONDS,
        )
        # Count messages in progress too. More than threads would only wait here instead of in another process.
        worker.queue_prefetch = size
        worker.start()
        ticker = Ticker(settings.redis_url, duties)
        ticker.start()
        process_metrics = ProcessMetrics(context, metrics_address)
        process_metrics.start()
        logger.info("worker is ready", queues=sorted(wanted), threads=size)
        tell_ready()
        grace = settings.worker_grace_seconds
        with exporting_spans(context), sending_webhooks(context) as sending:
            if wait_for_signal(None) == signal.SIGINT:
                grace = min(grace, SIGINT_GRACE_SECONDS)
            logger.info("worker drains", seconds=grace)
        process_metrics.stop()
        ticker.stop(0)
        ends_at = time.monotonic() + grace
        worker.stop(timeout=int(grace * 1000))
        sending.join(max(0.0, ends_at - time.monotonic()))
        ticker.stop(1)
        process_metrics.join(1)
        broker.close()
    logger.info("worker has ended")
    return 0


@contextmanager
def _stop_signals() -> Iterator[Callable[[float | None], int | None]]:
    """Catch SIGTERM and SIGINT; yield a function that blocks until one came or a timeout passed, and returns which or
    None.

    Through a pipe into which the interpreter's own handler writes, in whichever thread the signal arrives: a handler in
    Python runs in this thread only, when it has returned from waiting.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def wait(within: float | None) -> int | None:
        readable, _, _ = select.select([reading], [], [], within)
        return os.read(reading, 1)[0] if readable else None

    def ignore(_number: int, _frame: FrameType | None) -> None:
        """Keep the default action from ending the process."""

    former_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    former_handlers = {number: signal.signal(number, ignore) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield wait
    finally:
        for number, handler in former_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(former_fd)
        os.close(reading)
        os.close(writing)
