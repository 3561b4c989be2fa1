import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias

import redis.asyncio

from app.writes.attempts import Attempts, Unavailable
from models.claims.parking import poll_holders
from models.claims.poll_stops import Undelivered
from models.registries.write import EntryWritten
from models.runners.drain import Drained
from models.runners.leave import Left
from models.runners.register import Registered
from models.runs.report import Reported
from models.runs.stop import Stopped
from runtime import metrics
from runtime.loops import run_forever
from runtime.pubsub import publish_rechecks_async
from runtime.redis_client import FAILED

PAUSE_AFTER_FAILURE_SECONDS: Final = 1.0

# Each runner with the instances known to hold polls of it.
RunnersToNotify: TypeAlias = Mapping[str, frozenset[str]]


class PollWakeups:
    """Wake-ups of one web process, sent after commits by one task, coalesced to one message per instance.

    A lost one costs a runner the time to the next re-check. Polls of this process need none.
    """

    def __init__(self, looks: Attempts, client: redis.asyncio.Redis, instance: str) -> None:
        self._looks = looks
        self._client = client
        self._instance = instance
        self._pending: dict[str, frozenset[str]] = {}
        self._due = asyncio.Event()

    def send(self, runners: RunnersToNotify) -> None:
        """Wake the polls of these runners soon. Never blocks, never raises."""
        for runner_id, instances in runners.items():
            self._pending[runner_id] = self._pending.get(runner_id, frozenset()) | instances
            self._due.set()

    async def send_forever(self) -> None:
        await run_forever(
            self._send,
            failure="poll wake-ups not sent, left to the re-check",
            woken=self._due,
            pause_after_failure=PAUSE_AFTER_FAILURE_SECONDS,
            expected=(*FAILED, Unavailable),
        )

    async def _send(self) -> None:
        self._due.clear()
        runners, self._pending = self._pending, {}
        try:
            await self._publish(runners)
        except Exception:
            metrics.POLL_WAKEUPS.labels("failed").inc(len(runners))
            raise

    async def _publish(self, runners: RunnersToNotify) -> None:
        """Notify the instances that the commits named, then those where a poll was parked meanwhile."""
        named: set[tuple[str, str]] = {
            (instance, runner_id) for runner_id, instances in runners.items() for instance in instances
        }
        await self._publish_to(named)
        found = await self._looks.autocommit(poll_holders, list(runners))
        await self._publish_to({(instance, runner_id) for instance, ids in found.items() for runner_id in ids} - named)

    async def _publish_to(self, pairs: Collection[tuple[str, str]]) -> None:
        holders: dict[str, list[str]] = {}
        for instance, runner_id in sorted(pairs):
            if instance != self._instance:
                holders.setdefault(instance, []).append(runner_id)
        await publish_rechecks_async(self._client, holders)
        metrics.POLL_WAKEUPS.labels("sent").inc(sum(map(len, holders.values())))


def runners_to_notify(results: Sequence[Any]) -> RunnersToNotify:
    runners: dict[str, frozenset[str]] = {}
    for result in results:
        match result:
            case Undelivered(runner_id=runner_id) | Reported(runner_to_notify=str(runner_id)):
                runners.setdefault(runner_id, frozenset())
            case Drained(runner=runner, changed=True):
                runners.setdefault(runner.runner_id, frozenset())
            case (
                Left(runner_id=runner_id, parked_at=instances)
                | Stopped(runner_to_notify=str(runner_id), parked_at=instances)
                | Registered(runner_id=runner_id, renumbered=True, parked_at=instances)
            ):
                runners[runner_id] = runners.get(runner_id, frozenset()) | instances
            case EntryWritten(runners_to_sync=ids):
                runners |= {runner_id: runners.get(runner_id, frozenset()) for runner_id in ids}
            case _:
                pass
    return runners
