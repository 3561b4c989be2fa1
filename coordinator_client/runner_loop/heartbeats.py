import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress

from coordinator_client.backoff import Backoff
from coordinator_client.client import CoordinatorClient
from coordinator_client.errors import CallFailed, Refused
from coordinator_client.runner_loop import clock
from coordinator_client.runner_loop.event_log import log
from coordinator_client.runner_loop.executions import Reason, RunExecution
from coordinator_client.runner_loop.registration import RunnerRegistration
from coordinator_client.runner_loop.reporting import Reporting

# After this many heartbeat intervals without a response, our runs may have been given to other runners.
DOUBTFUL_BEATS = 2
# Interval of the check for suspension, and the delay of a check that proves it (or a SIGSTOP).
LOOK_SECONDS = 1.0
SUSPENDED_SECONDS = 2.0


class Heartbeats:
    """Sender of heartbeats that name the runs in hand; ends those that the response names as lost.

    `held` returns the current executions; `wake` is called after a suspension: connections are likely dead.
    """

    def __init__(
        self,
        client: CoordinatorClient,
        registration: RunnerRegistration,
        reporting: Reporting,
        *,
        held: Callable[[], Collection[RunExecution]],
        wake: Callable[[], None],
    ) -> None:
        self._client = client
        self._registration = registration
        self._reporting = reporting
        self._held = held
        self._wake = wake
        self._was_suspended = asyncio.Event()

    async def beat(self) -> None:
        """Send heartbeats until cancelled; the first one after a suspension at once."""
        watching = asyncio.create_task(self._watch_for_suspensions())
        try:
            await self._beat()
        finally:
            watching.cancel()

    async def _beat(self) -> None:
        backoff = Backoff(first=0.5, longest=5.0)
        pause = self._registration.heartbeat_seconds
        heard_at, generation = clock.elapsed(), self._registration.generation
        while True:
            await self._rest(pause)
            asked = self._registration.generation
            held = list(self._held())
            try:
                answer = await self._client.heartbeat(
                    self._registration.runner_id, [execution.run["run_id"] for execution in held]
                )
            except Refused as refused:
                if refused.status == 401 and not self._registration.is_leaving:
                    await self._registration.rejoin(asked)
                    pause = 0
                    continue
                log.warning("heartbeat_refused", reason=str(refused))
                pause = min(backoff.pause(), self._registration.heartbeat_seconds)
            except CallFailed as error:
                log.warning("heartbeat_failed", reason=str(error))
                pause = min(backoff.pause(), self._registration.heartbeat_seconds)
            else:
                silence = clock.elapsed() - heard_at
                if (not_yours := answer.get("not_yours")) is not None:
                    self._end_lost(held, not_yours)
                elif silence > DOUBTFUL_BEATS * self._registration.heartbeat_seconds or generation != asked:
                    await self._ask_for_each(held)
                heard_at, generation = clock.elapsed(), asked
                pause = self._registration.heartbeat_seconds
                backoff.reset()

    async def _rest(self, seconds: float) -> None:
        """Wait, but not beyond a suspension, nor after one that fell into the last call."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._was_suspended.wait()
        self._was_suspended.clear()

    async def _watch_for_suspensions(self) -> None:
        """Notice each time in which the machine was suspended or this process was stopped."""
        while True:
            before = clock.elapsed()
            await asyncio.sleep(LOOK_SECONDS)
            late = clock.elapsed() - before - LOOK_SECONDS
            if late > SUSPENDED_SECONDS:
                log.warning("suspended", seconds=round(late, 1))
                self._was_suspended.set()
                self._wake()

    def _end_lost(self, asked: Collection[RunExecution], not_yours: Collection[str]) -> None:
        """Kill the named runs; one claimed since the request was sent is not affected."""
        for execution in asked:
            if execution.run["run_id"] in not_yours:
                log.warning("claim_lost", run_id=execution.run["run_id"])
                execution.end(Reason.LOST)

    async def _ask_for_each(self, held: Collection[RunExecution]) -> None:
        """Repeat `started` for each running run; end those that are refused, which another runner has by now.

        Used with coordinators of the previous release, whose response has no `not_yours`.
        """
        for execution in [execution for execution in held if execution.is_started]:
            if not await self._reporting.started(execution.run):
                execution.end(Reason.LOST)
