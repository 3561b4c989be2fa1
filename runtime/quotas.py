"""Limit actions per minute: counted in Redis over a moving window, and per process while Redis is away."""

import asyncio
import time
from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

from cachetools import LRUCache
from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter as SharedWindows
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter as OwnWindows

from runtime.logs import log
from runtime.names import NAMESPACE
from runtime.redis_client import FAILED, async_client
from runtime.settings import Settings

logger = log(__name__)

WINDOW_SECONDS: Final = 60.0
# A request waits for Redis at most this long; after a failure, no request asks it for some time.
PATIENCE: Final = 0.25
PAUSE_AFTER_FAILURE_SECONDS: Final = 2.0
# Draw at most this part of a limit at once: a process may exceed the limit by so much, or leave it unused.
SMALLEST_PART: Final = 60
MOST_RESERVES: Final = 10_000


class Quota(NamedTuple):
    """Amount per minute, at least 1; each key has a count of its own under each `name`."""

    name: str
    amount: int


class Refusal(NamedTuple):
    remaining: int
    reset: float


@dataclass(slots=True, eq=False)
class _TokenReserve:
    item: RateLimitItemPerMinute
    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)
    in_hand: int = 0
    drawn_at: float = -inf
    part: int = 1
    refusal: Refusal | None = None
    closed_until: float = -inf


class Quotas:
    """Counters of one web process. Frequent keys are counted in parts, with one round trip for many requests."""

    def __init__(self, settings: Settings) -> None:
        self._client = async_client(settings.redis_url, answer_timeout=PATIENCE, connect_timeout=PATIENCE, retries=0)
        # Only parsed: the connections come from the pool.
        storage = RedisStorage(
            "redis://",
            implementation="redispy",
            key_prefix=f"{NAMESPACE}:quota",
            connection_pool=self._client.connection_pool,  # type: ignore[arg-type] # a pool is an option too
        )
        self._shared = SharedWindows(storage)
        self._own = OwnWindows(MemoryStorage())
        self._reserves: LRUCache[tuple[Quota, str], _TokenReserve] = LRUCache(MOST_RESERVES)
        self._away_until = -inf

    async def spend(self, quota: Quota, key: str, cost: int = 1) -> Refusal | None:
        """Take `cost`, at most the whole amount, from the quota of `key`. Returns None when allowed; else nothing was
        taken.

        Never raises because Redis is away: this process counts alone then. Exact for infrequent keys; for a frequent
        key each process may let a sixtieth of the amount more through.
        """
        cost = min(cost, quota.amount)
        reserve = self._reserve(quota, key)
        while True:
            now = time.monotonic()
            if now - reserve.drawn_at >= WINDOW_SECONDS:
                reserve.in_hand = 0
            if reserve.in_hand >= cost:
                reserve.in_hand -= cost
                return None
            if now < reserve.closed_until:
                return reserve.refusal
            if not reserve.drawing.locked():
                break
            # Wait for the draw in progress, then spend of its part.
            async with reserve.drawing:
                pass
        async with reserve.drawing:
            return await self._draw(reserve, key, cost)

    async def close(self) -> None:
        await self._client.aclose()

    def _reserve(self, quota: Quota, key: str) -> _TokenReserve:
        reserve = self._reserves.get((quota, key))
        if reserve is None:
            reserve = _TokenReserve(RateLimitItemPerMinute(quota.amount, namespace=quota.name))
            self._reserves[quota, key] = reserve
        return reserve

    async def _draw(self, reserve: _TokenReserve, key: str, cost: int) -> Refusal | None:
        now = time.monotonic()
        busy = now - reserve.drawn_at < 1.0
        reserve.part = min(reserve.part * 2, max(1, reserve.item.amount // SMALLEST_PART)) if busy else 1
        missing = cost - reserve.in_hand
        for part in sorted({max(missing, reserve.part), missing}, reverse=True):
            if await self._hit(reserve.item, key, part):
                reserve.in_hand += part - cost
                reserve.drawn_at = now
                return None
        reset_at, remaining = await self._left(reserve.item, key)
        refusal = Refusal(max(0, remaining), min(WINDOW_SECONDS, max(0.0, reset_at - time.time())))
        if remaining <= 0:
            # Refuse a flood without asking Redis each time.
            reserve.refusal, reserve.closed_until = refusal, now + min(refusal.reset, 1.0)
        return refusal

    async def _hit(self, item: RateLimitItemPerMinute, key: str, cost: int) -> bool:
        if time.monotonic() >= self._away_until:
            try:
                return await self._shared.hit(item, key, cost=cost)
            except FAILED as error:
                self._lost(error)
        return self._own.hit(item, key, cost=cost)

    async def _left(self, item: RateLimitItemPerMinute, key: str) -> tuple[float, int]:
        if time.monotonic() >= self._away_until:
            try:
                return await self._shared.get_window_stats(item, key)
            except FAILED as error:
                self._lost(error)
        return self._own.get_window_stats(item, key)

    def _lost(self, error: Exception) -> None:
        if self._away_until == -inf:
            logger.warning("Redis is away, each process counts callers alone", error=str(error))
        self._away_until = time.monotonic() + PAUSE_AFTER_FAILURE_SECONDS
