import asyncio
import time
from math import inf
from typing import Final

from app.writes.attempts import Attempts
from models.core.limits import Limits
from models.core.statuses import IN_HAND
from models.monitoring.cluster import Cluster, read_cluster, read_tables
from runtime import cluster_metrics as gauges
from runtime import logs
from runtime.names import Actor
from runtime.postgres import async_engine
from runtime.settings import Settings

SNAPSHOT_SECONDS: Final = 5.0
TABLES_SECONDS: Final = 60.0
TIMEOUT_SECONDS: Final = 1
# Wait this long for a snapshot: a statement, a connection and an answer that Postgres cancels.
LONGEST_SECONDS: Final = 1.5

log = logs.log(__name__)


class ClusterMetrics:
    """Snapshot of the installation, read when a scraper asks and at most every 5 s, over a connection of its own.

    While Postgres is away, or slower than a second, the last values are served with their age.
    """

    def __init__(self, settings: Settings, limits: Limits) -> None:
        short: dict[str, object] = {
            "statement_timeout_seconds": float(TIMEOUT_SECONDS),
            "lock_timeout_seconds": float(TIMEOUT_SECONDS),
            "pool_timeout_seconds": float(TIMEOUT_SECONDS),
            "connect_timeout_seconds": TIMEOUT_SECONDS,
        }
        self._engine = async_engine(settings.model_copy(update=short), pool_size=1, name="coordinator-web-metrics")
        self._attempts = Attempts(self._engine, silence=float(TIMEOUT_SECONDS))
        self._limits = limits
        self._reading = asyncio.Lock()
        self._read_at = self._tables_at = self._tried_at = -inf
        self._failing = False

    async def close(self) -> None:
        await self._engine.dispose()

    async def render(self) -> tuple[bytes, str]:
        """Return the metrics as text. Requests that come together share one reading."""
        async with self._reading:
            if time.monotonic() - self._tried_at >= SNAPSHOT_SECONDS:
                await self._read()
            gauges.SNAPSHOT_AGE.set(time.monotonic() - self._read_at)
            return gauges.render_cluster()

    async def _read(self) -> None:
        self._tried_at = begun = time.monotonic()
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                _set(await self._attempts.read(read_cluster, tuple(Actor), limits=self._limits))
            self._read_at = time.monotonic()
            gauges.SNAPSHOT_SECONDS.set(self._read_at - begun)
            if begun - self._tables_at >= TABLES_SECONDS:
                async with asyncio.timeout(LONGEST_SECONDS):
                    _set_tables(await self._attempts.read(read_tables))
                self._tables_at = begun
        except Exception as error:  # noqa: BLE001 -- whatever it is, the last values and their age are the answer
            if not self._failing:
                log.warning("snapshot for metrics not read", error=type(error).__name__)
            self._failing = True
        else:
            self._failing = False


def _set(cluster: Cluster) -> None:
    # Drop series of queues and runners that are gone.
    for gauge in gauges.BY_LABEL:
        gauge.clear()
    for queue in cluster.queues:
        gauges.RUNS_READY.labels(queue.profile).set(queue.ready)
        gauges.OLDEST_READY.labels(queue.profile).set(queue.waited)
        gauges.RUNS_UNSERVED.labels(queue.profile).set(queue.unserved)
    for reason, number in cluster.waiting.items():
        gauges.RUNS_WAITING.labels(reason).set(number)
    for status in IN_HAND:
        gauges.RUNS_IN_HAND.labels(status).set(cluster.in_hand.get(status, 0))
    for group in cluster.runners:
        gauges.RUNNER_SLOTS.labels(group.profile).set(group.slots)
        gauges.RUNNER_SLOTS_USED.labels(group.profile).set(group.slots_used)
    for state in ("online", "draining", "stale", "lost"):
        gauges.RUNNERS.labels(state).set(sum(getattr(group, state) for group in cluster.runners))
    gauges.FEED_HEAD.set(cluster.head)
    gauges.FEED_FLOOR.set(cluster.floor)
    gauges.FEED_UNNUMBERED.set(cluster.unnumbered)
    gauges.FEED_OLDEST.set(cluster.oldest_unnumbered)
    gauges.STATS_LAG.set(cluster.stats_lag)
    gauges.SCHEDULES_LATE.set(cluster.schedules_late)
    gauges.WEBHOOKS_PENDING.set(cluster.webhooks_pending)
    gauges.WEBHOOKS_OLDEST.set(cluster.webhooks_oldest)
    for duty, moment in cluster.duties.items():
        gauges.DUTY_LAST.labels(duty).set(moment)
    for kind in ("expiry", "web", "runners"):
        outages, seconds = cluster.outages.get(kind, (0, 0.0))
        gauges.OUTAGES.labels(kind).set(outages)
        gauges.OUTAGE_SECONDS.labels(kind).set(seconds)


def _set_tables(tables: dict[str, tuple[int, int]]) -> None:
    for table, (dead_rows, size) in tables.items():
        gauges.TABLE_DEAD_ROWS.labels(table).set(dead_rows)
        gauges.TABLE_BYTES.labels(table).set(size)
