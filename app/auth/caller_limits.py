"""Limit what one caller may use, so that none can flood the others: submissions, events, streams (docs/limits.md).

No limit applies while authentication is off: all requests come from one caller then.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from cachetools import LRUCache

from app.auth.callers import UNAUTHENTICATED_ADMIN, Credential
from app.auth.permissions import Counted
from app.auth.throttle import MOST_CALLERS, Throttle
from app.http.problems import TooMany
from app.lifecycle.drain import Drain
from models.core.callers import Role
from runtime.quotas import Quota, Quotas
from runtime.settings import Settings

# Delay a runner's request no longer than this: a deployed runner waits 35 s for an answer and sends each event once.
LONGEST_DELAY: Final = 5.0
# Unit in which bytes of events are counted: the counters keep one entry per unit and minute.
EVENT_BYTES_UNIT: Final = 64 * 1024
BY_ROUTES: Final = frozenset({Counted.SUBMISSIONS, Counted.EVENTS})
# Rejected requests per second and caller that this process answers at once; further ones wait.
REFUSALS_A_SECOND: Final = 20


class CallerLimits:
    """Limits of all callers. Streams are counted in this process, everything else over all instances.

    Beyond a limit of requests, events or bytes TooMany is raised; a runner's are delayed instead, 5 s at most.
    """

    def __init__(self, settings: Settings, drain: Drain) -> None:
        self._quotas = Quotas(settings)
        self._reads = Throttle(drain, settings.reads_per_second)
        self._refusals = Throttle(drain, REFUSALS_A_SECOND)
        self._drain = drain
        self._amounts = {
            Counted.SUBMISSIONS: Quota("submissions", settings.submissions_per_minute),
            Counted.EVENTS: Quota("events", settings.events_per_minute),
            Counted.CHANGES: Quota("changes", settings.changes_per_minute),
            Counted.REGISTRATIONS: Quota("registrations", settings.registrations_per_minute),
            Counted.REPORTS: Quota("reports", settings.reports_per_minute),
        }
        self._event_bytes = Quota("64 KiB of events", -(-settings.event_bytes_per_minute // EVENT_BYTES_UNIT))
        self._uncounted_bytes: LRUCache[str, int] = LRUCache(MOST_CALLERS)
        self._most_streams = settings.streams_per_caller
        self._streams: dict[str, dict[object, Callable[[], None]]] = {}

    async def count(self, credential: Credential, counted: Counted) -> None:
        if counted not in BY_ROUTES:
            await self._pass(credential, self._amounts[counted], 1)

    async def submit(self, credential: Credential, runs: int = 1) -> None:
        await self._pass(credential, self._amounts[Counted.SUBMISSIONS], runs, delays_runners=False)

    async def append(self, credential: Credential, session_id: str, events: int = 1) -> None:
        # Counted per session, so that events sent to another caller's session use up nothing of it.
        await self._pass(credential, self._amounts[Counted.EVENTS], events, within=f"/{session_id[:128]}")

    async def append_bytes(self, credential: Credential, size: int) -> None:
        if credential is UNAUTHENTICATED_ADMIN:
            return
        name = name_of(credential)
        units, self._uncounted_bytes[name] = divmod(self._uncounted_bytes.get(name, 0) + size, EVENT_BYTES_UNIT)
        if units:
            await self._pass(credential, self._event_bytes, units)

    async def _pass(
        self, credential: Credential, quota: Quota, cost: int, *, within: str = "", delays_runners: bool = True
    ) -> None:
        if credential is UNAUTHENTICATED_ADMIN or not quota.amount:
            return
        try:
            await self._spend(quota, f"{name_of(credential)}{within}", max(1, cost))
        except TooMany as refused:
            if not delays_runners or credential.caller.role is not Role.RUNNER:
                raise
            await asyncio.sleep(min(refused.reset, LONGEST_DELAY, self._drain.give_up_in()))

    async def throttle_read(self, credential: Credential) -> None:
        if credential.caller.role is Role.USER:
            await self._reads.wait(name_of(credential))

    async def throttle_rejection(self) -> None:
        await self._refusals.wait("")

    @contextmanager
    def streaming(self, credential: Credential, end: Callable[[], None]) -> Iterator[None]:
        """Count a stream of the caller; with too many, end the oldest by calling its ``end``."""
        if credential is UNAUTHENTICATED_ADMIN or not self._most_streams:
            yield
            return
        name = name_of(credential)
        streams = self._streams.setdefault(name, {})
        stream = object()
        streams[stream] = end
        if len(streams) > self._most_streams:
            streams.pop(next(iter(streams)))()
        try:
            yield
        finally:
            streams.pop(stream, None)
            if not streams and self._streams.get(name) is streams:
                del self._streams[name]

    async def close(self) -> None:
        await self._quotas.close()

    async def _spend(self, quota: Quota, name: str, cost: int) -> None:
        refusal = await self._quotas.spend(quota, name, cost)
        if refusal is not None:
            await self._refusals.wait(f"{quota.name} {name}")
            raise TooMany(quota.name, quota.amount, refusal.remaining, refusal.reset, name)


def caller_of(credential: Credential) -> str:
    """Return the caller whose share of a process is counted; "" while authentication is off."""
    return "" if credential is UNAUTHENTICATED_ADMIN else name_of(credential)


def name_of(credential: Credential) -> str:
    caller = credential.caller
    return f"{caller.role}:{caller.owner}" if caller.owner is not None else f"key:{credential.key_id}"
