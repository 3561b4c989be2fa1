"""Worker inside the test's own process, without the ticker."""

from collections.abc import Iterator
from contextlib import contextmanager

import dramatiq

from runtime.settings import Settings
from workers.actors import declare_actors
from workers.broker import WakingBroker
from workers.context import worker_context
from workers.duties import duties_of
from workers.ticks import Ticker


@contextmanager
def running_worker(settings: Settings) -> Iterator[None]:
    """Run actors until the end of the block: every effect in it came from a wake-up."""
    broker = WakingBroker(settings.redis_url)
    with worker_context(settings, threads=2) as context:
        declare_actors(broker, duties_of(context))
        worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
        worker.start()
        try:
            yield
        finally:
            worker.stop(timeout=5000)
            broker.close()


@contextmanager
def running_ticker(settings: Settings) -> Iterator[None]:
    """Run the ticker until the end of the block: it wakes the actors, and does their work while Redis is away."""
    with worker_context(settings, threads=2) as context:
        ticker = Ticker(settings.redis_url, duties_of(context))
        ticker.start()
        try:
            yield
        finally:
            ticker.stop(10)
