"""A runner's signs of life, and what their answers say of its runs."""

import asyncio
from collections.abc import Callable, Collection

import structlog

from coordinator_client.backoff import Backoff
from coordinator_client.client import CoordinatorClient
from coordinator_client.errors import CoordinatorError, Refused
from runner import clock
from runner.executor import Execution, Reason
from runner.registration import Membership
from runner.reporting import Reporting

# After so many heartbeats' time without a word from the coordinator our runs may have been given to others.
DOUBTFUL_BEATS = 2
# Sleep is looked for this often; a look that comes so much too late says that we were suspended, or stopped.
LOOK_SECONDS = 1.0
SUSPENDED_SECONDS = 2.0

log = structlog.stdlib.get_logger("runner")


class Heartbeats:
    """Shows life, names what is held, and ends what the answer says is not ours.

    `held` gives the executions of the moment; `wake` is called when the machine slept: connections are likely dead.
    """

    def __init__(
        self,
        client: CoordinatorClient,
        membership: Membership,
        reporting: Reporting,
        *,
        held: Callable[[], Collection[Execution]],
        wake: Callable[[], None],
    ) -> None:
        self._client = client
        self._membership = membership
        self._reporting = reporting
        self._held = held
        self._wake = wake

    async def beat(self) -> None:
        """Send one heartbeat after the other, and one at once when the machine has slept; without an end."""
        backoff = Backoff(first=0.5, most=5.0)
        pause = self._membership.heartbeat_seconds
        heard_at, generation = clock.elapsed(), self._membership.generation
        while True:
            if await self._rest(pause):
                self._wake()
            asked = self._membership.generation
            held = list(self._held())
            try:
                answer = await self._client.heartbeat(
                    self._membership.runner_id, [execution.run["run_id"] for execution in held]
                )
            except Refused as refused:
                if refused.status == 401 and not self._membership.is_leaving:
                    await self._membership.rejoin(asked)
                    pause = 0
                    continue
                log.warning("heartbeat_refused", reason=str(refused))
                pause = min(backoff.pause(), self._membership.heartbeat_seconds)
            except CoordinatorError as error:
                log.warning("heartbeat_failed", reason=str(error))
                pause = min(backoff.pause(), self._membership.heartbeat_seconds)
            else:
                silence = clock.elapsed() - heard_at
                if (not_yours := answer.get("not_yours")) is not None:
                    self._end_lost(held, not_yours)
                elif silence > DOUBTFUL_BEATS * self._membership.heartbeat_seconds or generation != asked:
                    await self._ask_for_each(held)
                heard_at, generation = clock.elapsed(), asked
                pause = self._membership.heartbeat_seconds
                backoff.reset()

    async def _rest(self, seconds: float) -> bool:
        """Wait so long; True, at once, when the machine slept or this process was stopped meanwhile."""
        while seconds > 0:
            step = min(seconds, LOOK_SECONDS)
            before = clock.elapsed()
            await asyncio.sleep(step)
            late = clock.elapsed() - before - step
            if late > SUSPENDED_SECONDS:
                log.warning("was_suspended", seconds=round(late, 1))
                return True
            seconds -= step
        return False

    def _end_lost(self, asked: Collection[Execution], not_yours: Collection[str]) -> None:
        """Kill what the coordinator has taken from us; a claim that came meanwhile was not asked for."""
        for execution in asked:
            if execution.run["run_id"] in not_yours:
                log.warning("not_ours_any_more", run_id=execution.run["run_id"])
                execution.end(Reason.LOST)

    async def _ask_for_each(self, held: Collection[Execution]) -> None:
        """Repeat `started` for what runs: refused, it has been given to another runner, and ends here.

        For coordinators of the release before, whose answer names nothing.
        """
        for execution in [execution for execution in held if execution.is_started]:
            if not await self._reporting.started(execution.run):
                execution.end(Reason.LOST)
