import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from math import inf
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from models.core.ids import new_id
from models.expiry.duties import ping
from models.monitoring.targets import RECORD_SECONDS, Target, drop_target, record_target
from models.schema.revisions import newest_revision
from runtime import metrics
from runtime.addresses import advertised
from runtime.logs import log
from runtime.names import Queue, queue_key
from runtime.pools import note_pool
from runtime.postgres import autocommit
from runtime.redis_client import FAILED
from workers.context import WorkerContext

logger = log(__name__)

CHECK_SECONDS: Final = 5.0


class ProcessMetrics(threading.Thread):
    """Checks Postgres and Redis every 5 s for the metrics of a worker process, apart from its work, and records the
    address of these metrics.
    """

    def __init__(self, context: WorkerContext, address: "Future[tuple[str, int]] | None") -> None:
        super().__init__(name="process metrics", daemon=True)
        self._context = context
        self._address = address
        self._instance = new_id("worker_")
        self._recorded_at = -inf
        self._ended = threading.Event()
        self._end_refresh = metrics.before_render(partial(_note_pool, context))
        metrics.set_build(newest_revision())

    def run(self) -> None:
        while not self._ended.is_set():
            _check("postgres", self._ask_postgres, (SQLAlchemyError,))
            _check("redis", self._ask_redis, FAILED)
            self._ended.wait(CHECK_SECONDS)
        if self._own_target is not None:
            with suppress(SQLAlchemyError), autocommit(self._context.engine) as connection:
                drop_target(connection, self._own_target)

    def stop(self) -> None:
        self._ended.set()
        self._end_refresh()

    @property
    def _own_target(self) -> Target | None:
        if self._address is None or not self._address.done():
            return None
        return Target(advertised(self._context.settings, *self._address.result()), "worker", self._instance)

    def _ask_postgres(self) -> None:
        target = self._own_target
        with autocommit(self._context.engine) as connection:
            if target is None or time.monotonic() - self._recorded_at < RECORD_SECONDS:
                ping(connection)
            else:
                record_target(connection, target)
                self._recorded_at = time.monotonic()

    def _ask_redis(self) -> None:
        for queue in Queue:
            # The client is synchronous, its annotation covers both kinds.
            waiting = self._context.redis.llen(queue_key(queue))
            assert isinstance(waiting, int)  # noqa: S101 -- as above
            metrics.ACTOR_QUEUE.labels(queue).set(waiting)


def _check(dependency: str, ask: Callable[[], None], failures: tuple[type[BaseException], ...]) -> None:
    begun = time.monotonic()
    try:
        ask()
    except failures:
        metrics.DEPENDENCY_UP.labels(dependency).set(0)
        metrics.DEPENDENCY_FAILURES.labels(dependency).inc()
    except Exception:
        logger.exception("check failed", dependency=dependency)
    else:
        metrics.DEPENDENCY_UP.labels(dependency).set(1)
        metrics.DEPENDENCY_SECONDS.labels(dependency).observe(time.monotonic() - begun)


def _note_pool(context: WorkerContext) -> None:
    note_pool("worker", context.engine.pool)
