import asyncio
import time
from collections.abc import Mapping, Sequence
from math import inf
from typing import Final

from sqlalchemy import Connection

from app.lifecycle.health import Health
from app.polls.heartbeats import Heartbeats
from app.polls.held import Polls
from app.writes.attempts import Attempts, Unavailable
from models.claims.parking import leave_instance
from models.expiry.duties import duty_ages, ping, record_instance_heartbeat
from models.monitoring.targets import RECORD_SECONDS, Target, drop_target, record_target
from models.schema.revisions import schema_fault
from runtime import logs
from runtime.loops import jittered, run_forever
from runtime.metrics import DEPENDENCY_FAILURES, DEPENDENCY_SECONDS
from runtime.names import Actor
from runtime.redis_probe import RedisProbe

BEAT_SECONDS: Final = 2.0
# Several beats missed: no worker does this duty.
OVERDUE_SECONDS: Final = 10.0
_POSTGRES_SECONDS: Final = DEPENDENCY_SECONDS.labels("postgres")
_REDIS_SECONDS: Final = DEPENDENCY_SECONDS.labels("redis")

log = logs.log(__name__)


class InstanceHeartbeat:
    def __init__(
        self,
        instance: str,
        health: Health,
        pools: Mapping[str, Attempts],
        polls: Polls,
        heartbeats: Heartbeats,
        redis_probe: RedisProbe,
        address: str = "",
    ) -> None:
        self._instance = instance
        self._target = Target(address, "web", instance) if address else None
        self._recorded_at = -inf
        self._health = health
        self._pools = pools
        self._polls = polls
        self._heartbeats = heartbeats
        self._redis_probe = redis_probe

    async def heartbeat_forever(self) -> None:
        await run_forever(
            self._check_and_beat,
            failure="heartbeat failed",
            every=lambda: jittered(BEAT_SECONDS if self._health.started else 0.25),
            silent=(Unavailable,),
        )

    async def probe_forever(self) -> None:
        """Probe Redis in a loop of its own, so that a late answer delays no heartbeat and an outage of Postgres no
        probe.
        """
        # Probe every 0.5 s while there is a fault: the subscription may be just about to stand.
        await run_forever(
            self._probe,
            failure="Redis probe failed",
            every=lambda: jittered(BEAT_SECONDS if self._health.redis_fault is None else 0.5),
        )

    async def leave(self) -> None:
        try:
            if self._target is not None:
                await self._pools["writes"].autocommit(drop_target, self._target)
            await self._pools["writes"].write(_leave, [self._instance])
        except Exception as fault:  # noqa: BLE001 -- rows of a silent instance are deleted by others
            log.info("waiting rows not deleted at shutdown", error=type(fault).__name__)

    async def _check_and_beat(self) -> None:
        if self._health.started or await self._started():
            await self._beat()

    async def _probe(self) -> None:
        begun = time.perf_counter()
        fault = await self._redis_probe.look()
        self._health.note_redis(fault)
        if fault is None:
            _REDIS_SECONDS.observe(time.perf_counter() - begun)
        else:
            DEPENDENCY_FAILURES.labels("redis").inc()

    async def _started(self) -> bool:
        fault = await self._pools["reads"].read(schema_fault)
        if fault is not None:
            self._health.note({"schema": fault})
            return False
        self._health.note({})
        self._health.start()
        return True

    async def _beat(self) -> None:
        """Record the heartbeat and check the duties; a failure of one call stops none of the others.

        Pools over which Postgres did not answer last are probed.
        """
        self._heartbeats.seen(self._polls.runners())
        calls = (
            self._record_heartbeat(),
            self._record_target(),
            self._pools["reads"].autocommit(duty_ages),
            *(attempts.autocommit(ping) for pool, attempts in self._pools.items() if pool in self._health.away),
        )
        _, _, ages, *_ = results = await asyncio.gather(*calls, return_exceptions=True)
        reasons = {}
        if isinstance(ages, Mapping):
            overdue = sorted(duty for duty in (Actor.DISPATCH, Actor.EXPIRE) if ages.get(duty, inf) > OVERDUE_SECONDS)
            if overdue:
                reasons["workers"] = f"no worker did {', '.join(overdue)} for {OVERDUE_SECONDS:.0f} s"
        self._health.note(reasons)
        for fault in results:
            if isinstance(fault, BaseException) and not isinstance(fault, Unavailable):
                raise fault

    async def _record_target(self) -> None:
        if self._target is not None and time.monotonic() - self._recorded_at >= RECORD_SECONDS:
            await self._pools["reads"].autocommit(record_target, self._target)
            self._recorded_at = time.monotonic()

    async def _record_heartbeat(self) -> None:
        """Record the heartbeat, over the feed's pool if the pool for writes is full: an instance that is silent for
        some time counts as gone, and a flood of writes must not cause that.
        """
        begun = time.perf_counter()
        try:
            await self._pools["writes"].autocommit(record_instance_heartbeat, self._instance)
            _POSTGRES_SECONDS.observe(time.perf_counter() - begun)
        except Unavailable:
            await self._pools["feed"].autocommit(record_instance_heartbeat, self._instance)


def _leave(conn: Connection, instances: Sequence[str]) -> list[None]:
    for instance in instances:
        leave_instance(conn, instance)
    return [None for _ in instances]
