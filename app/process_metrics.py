import asyncio
from collections.abc import Mapping
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from app.feed.reader import Feed
from app.lifecycle.health import Health
from app.polls.held import Polls
from app.writes.queues import Verbs
from models.schema.revisions import newest_revision
from runtime import metrics
from runtime.loops import run_forever
from runtime.pools import note_pool

MEASURE_SECONDS: Final = 0.5


class ProcessMetrics:
    """Gauges of one web process, read when a scraper asks, and the lag of its event loop, measured twice a second."""

    def __init__(
        self, engines: Mapping[str, AsyncEngine], verbs: Verbs, polls: Polls, feed: Feed, health: Health
    ) -> None:
        self._engines = engines
        self._verbs = verbs
        self._polls = polls
        self._feed = feed
        self._health = health
        self._end = metrics.before_render(self._refresh)
        metrics.set_build(newest_revision())

    def close(self) -> None:
        self._end()

    async def measure_forever(self) -> None:
        await run_forever(self._measure, failure="event loop not measured", every=lambda: 0.0)

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + MEASURE_SECONDS
        await asyncio.sleep(MEASURE_SECONDS)
        metrics.LOOP_LAG.observe(max(0.0, loop.time() - due))

    def _refresh(self) -> None:
        for name, engine in self._engines.items():
            note_pool(name, engine.sync_engine.pool)
        for verb, number in self._verbs.waiting().items():
            metrics.BATCH_QUEUE.labels(verb).set(number)
        metrics.POLLS_HELD.set(len(self._polls))
        events, seconds = self._feed.lag()
        metrics.READER_LAG_EVENTS.set(events)
        metrics.READER_LAG_SECONDS.set(seconds)
        metrics.DEPENDENCY_UP.labels("postgres").set(not self._health.away)
        metrics.DEPENDENCY_UP.labels("redis").set(self._health.redis_fault is None)
