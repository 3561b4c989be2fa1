"""How much one caller may ask for, so that no one can flood the others: submissions, events, streams (docs/limits.md).

None of it holds while authentication is off: then there is one caller, everybody.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from app.auth.callers import UNAUTHENTICATED_ADMIN, Credential
from app.auth.permissions import Counted
from app.auth.throttle import MOST_CALLERS, Throttle
from app.http.problems import TooMany
from app.lifecycle.drain import Drain
from models.core.callers import Role
from runtime.quotas import Quota, Quotas
from runtime.settings import Settings

# A deployed runner waits 35 s for an answer and sends each event once: what is late is taken all the same.
LONGEST_DELAY: Final = 5.0
# Bytes of events are counted in these: the counters keep one entry for each unit of a minute.
EVENT_BYTES_UNIT: Final = 64 * 1024
BY_ROUTES: Final = frozenset({Counted.SUBMISSIONS, Counted.EVENTS})
# Of one caller in this process; beyond that it waits a little for the next one.
REFUSALS_A_SECOND: Final = 20


class CallerLimits:
    """What the routes ask before they do what costs; streams are counted in this process, the rest in all of them."""

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
        self._uncounted_bytes: OrderedDict[str, int] = OrderedDict()
        self._most_streams = settings.streams_per_caller
        self._streams: dict[str, OrderedDict[object, Callable[[], None]]] = {}

    async def count(self, credential: Credential, counted: Counted) -> None:
        """Let one request pass of a kind that is counted by requests. Raises TooMany; a runner's are delayed."""
        if counted not in BY_ROUTES:
            await self._pass(credential, self._amounts[counted], 1)

    async def submit(self, credential: Credential, runs: int = 1) -> None:
        """Let so many submissions of the caller pass. Raises TooMany."""
        await self._pass(credential, self._amounts[Counted.SUBMISSIONS], runs, delays_runners=False)

    async def append(self, credential: Credential, session_id: str, events: int = 1) -> None:
        """Let so many events of a session pass. Raises TooMany; a runner's are delayed instead, 5 s at most."""
        # Of another caller's session nothing is used up.
        await self._pass(credential, self._amounts[Counted.EVENTS], events, within=f"/{session_id[:128]}")

    async def append_bytes(self, credential: Credential, size: int) -> None:
        """Let so many bytes of events pass. Raises TooMany; a runner's are delayed instead, 5 s at most."""
        if credential is UNAUTHENTICATED_ADMIN:
            return
        name = name_of(credential)
        units, rest = divmod(self._uncounted_bytes.pop(name, 0) + size, EVENT_BYTES_UNIT)
        self._uncounted_bytes[name] = rest
        if len(self._uncounted_bytes) > MOST_CALLERS:
            self._uncounted_bytes.popitem(last=False)
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

    async def look(self, credential: Credential) -> None:
        """Let the caller read; a user who reads more than others could beside it waits for its turn, 1 s at most."""
        if credential.caller.role is Role.USER:
            await self._reads.wait(name_of(credential))

    async def reject(self) -> None:
        """Wait until somebody may be told that its credential is not good; all of them take turns together."""
        await self._refusals.wait("")

    @contextmanager
    def streaming(self, credential: Credential, end: Callable[[], None]) -> Iterator[None]:
        """Count a stream of the caller; of too many the oldest is ended, by the ``end`` it came with."""
        if credential is UNAUTHENTICATED_ADMIN or not self._most_streams:
            yield
            return
        name = name_of(credential)
        streams = self._streams.setdefault(name, OrderedDict())
        mine = object()
        streams[mine] = end
        if len(streams) > self._most_streams:
            _, end_oldest = streams.popitem(last=False)
            end_oldest()
        try:
            yield
        finally:
            streams.pop(mine, None)
            if not streams and self._streams.get(name) is streams:
                del self._streams[name]

    async def close(self) -> None:
        """Count no more."""
        await self._quotas.close()

    async def _spend(self, quota: Quota, name: str, cost: int) -> None:
        refusal = await self._quotas.spend(quota, name, cost)
        if refusal is not None:
            await self._refusals.wait(f"{quota.name} {name}")
            raise TooMany(quota.name, quota.amount, refusal.remaining, refusal.reset)


def caller_of(credential: Credential) -> str:
    """Return the caller whose share of a process is counted; "" while everybody is one."""
    return "" if credential is UNAUTHENTICATED_ADMIN else name_of(credential)


def name_of(credential: Credential) -> str:
    """Return the caller that a credential counts for: its owner, or the key of an admin without an owner."""
    caller = credential.caller
    return f"{caller.role}:{caller.owner}" if caller.owner is not None else f"key:{credential.key_id}"
