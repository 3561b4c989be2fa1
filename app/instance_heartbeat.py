"""The process's own loop, every ~2 s: its sign of life, and that of the runners whose polls it holds."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection

from app.writes.attempts import Unavailable
from models.claims.parking import leave_instance
from models.expiry.duties import duty_ages, is_there, record_instance_heartbeat
from models.schema.migrate import schema_fault
from runtime import logs
from runtime.names import Actor

if TYPE_CHECKING:
    from app.web import Web

BEAT_SECONDS: Final = 2.0
# Several turns missed: whoever should have done the duty is away.
OVERDUE_SECONDS: Final = 10.0

log = logs.log(__name__)


class InstanceHeartbeat:
    """Everything in it is bounded and survives Postgres being away; no turn waits for the one before."""

    def __init__(self, web: "Web") -> None:
        self._web = web

    async def heartbeat_forever(self) -> None:
        """Look at the schema until it is right, then do each turn's work."""
        while True:
            try:
                if self._web.health.started or await self._started():
                    await self._beat()
            except Unavailable:
                pass
            except Exception:
                log.exception("beat failed")
            pause = BEAT_SECONDS if self._web.health.started else 0.25
            await asyncio.sleep(pause * random.uniform(0.9, 1.0))

    async def probe_forever(self) -> None:
        """Look whether Redis does its part, also while Postgres is away; a late answer delays no turn of ours."""
        while True:
            fault = None
            try:
                fault = await self._web.redis_probe.look()
                self._web.health.note_redis(fault)
            except Exception:
                log.exception("probe failed")
            # Soon while it is away: it may just be that our subscription is being made.
            await asyncio.sleep((BEAT_SECONDS if fault is None else 0.5) * random.uniform(0.9, 1.0))

    async def leave(self) -> None:
        """Take the process's waiting rows away, so that nobody assigns anything to it."""
        try:
            await self._web.writes.write(_leave, [self._web.instance])
        except Exception as fault:  # noqa: BLE001 -- rows of a silent instance are taken away by others
            log.info("left without a word", error=type(fault).__name__)

    async def _started(self) -> bool:
        fault = await self._web.reads.read(schema_fault)
        if fault is not None:
            self._web.health.note({"schema": fault})
            return False
        self._web.health.note({})
        self._web.health.start()
        return True

    async def _beat(self) -> None:
        """Sign and look; one that fails keeps back none of the others. A pool over which Postgres was away is asked."""
        web = self._web
        web.heartbeats.seen(web.polls.runners())
        calls = (
            self._sign(),
            web.reads.autocommit(duty_ages),
            *(attempts.autocommit(is_there) for pool, attempts in web.pools.items() if pool in web.health.away),
        )
        _, ages, *_ = results = await asyncio.gather(*calls, return_exceptions=True)
        reasons = {}
        if isinstance(ages, Mapping):
            overdue = sorted(duty for duty in (Actor.DISPATCH, Actor.EXPIRE) if ages.get(duty, inf) > OVERDUE_SECONDS)
            if overdue:
                reasons["workers"] = f"no worker did {', '.join(overdue)} for {OVERDUE_SECONDS:.0f} s"
        web.health.note(reasons)
        for fault in results:
            if isinstance(fault, BaseException) and not isinstance(fault, Unavailable):
                raise fault

    async def _sign(self) -> None:
        """Without a sign for a while the process passes for gone: a crowd of writers must not keep it back."""
        try:
            await self._web.writes.autocommit(record_instance_heartbeat, self._web.instance)
        except Unavailable:
            await self._web.following.autocommit(record_instance_heartbeat, self._web.instance)


def _leave(conn: Connection, instances: Sequence[str]) -> list[None]:
    for instance in instances:
        leave_instance(conn, instance)
    return [None for _ in instances]
