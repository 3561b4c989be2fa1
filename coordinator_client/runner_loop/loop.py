import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from coordinator_client.backoff import Backoff
from coordinator_client.client import CoordinatorClient
from coordinator_client.errors import CallFailed, Refused
from coordinator_client.requests import Identity
from coordinator_client.runner_loop.event_log import log
from coordinator_client.runner_loop.executions import Reason, Reporter, RunExecution
from coordinator_client.runner_loop.heartbeats import Heartbeats
from coordinator_client.runner_loop.registration import RunnerRegistration, Slot
from coordinator_client.runner_loop.reporting import Reporting
from coordinator_client.types import ClaimedRun

# Seconds between the order to end a run and its end by force.
STOP_GRACE_SECONDS = 5.0
# Seconds for which a runner is full before it polls for stops only: short runs never pay for that poll.
FULL_SECONDS = 0.3
# Seconds that a runner ordered to leave has for its runs; after `lost_after` they would be given to other runners.
SENT_AWAY_SECONDS = 30.0
# Seconds in which killed processes' last lines are sent.
LAST_LINES_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopOptions:
    """Options of a runner's loop.

    Attributes:
        identity: Registration of the runner.
        concurrency: Runs at a time.
        grace_seconds: Time that runs have after a drain; None: to their end.
        stop_grace_seconds: Time that a run ordered to end has before it is ended by force.
        slot: Number that the profile follows from.
    """

    identity: Identity
    concurrency: int
    grace_seconds: float | None = None
    stop_grace_seconds: float = STOP_GRACE_SECONDS
    slot: Slot | None = None


class RunnerLoop:
    """Loop of one runner: polls for runs while a slot is free, always for stops, sends heartbeats, drains in order.

    A run is held from its claim until its end report was accepted or refused (PROTOCOL, Runners).

    Args:
        options: Registration and limits.
        client: Client with `patience_seconds=0`: the loop repeats calls itself.
        begin: Makes the execution of a claimed run, which reports to the second argument.
        check: Returns why no run can be executed here at the moment, None if one can; asked while the loop is paused.
    """

    def __init__(
        self,
        options: LoopOptions,
        client: CoordinatorClient,
        begin: Callable[[ClaimedRun, Reporter], RunExecution],
        check: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._options = options
        self._client = client
        self._begin = begin
        self._check = check
        self._registration = RunnerRegistration(client, options.identity, options.slot)
        self._reporting = Reporting(client, self._registration)
        self._heartbeats = Heartbeats(
            client, self._registration, self._reporting, held=lambda: list(self._held.values()), wake=self._wake
        )
        self._pausing: asyncio.Task[None] | None = None
        self._pauses = Backoff(first=1.0, longest=60.0)
        self._slots = asyncio.Semaphore(options.concurrency)
        self._held: dict[asyncio.Task[None], RunExecution] = {}
        self._asides: set[asyncio.Task[None]] = set()
        self._draining = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._changed = asyncio.Event()
        self._woken = False
        self._grace = options.grace_seconds

    def drain(self) -> None:
        """Take no more runs, finish those in hand, then leave; called again: do not finish them."""
        if self._draining.is_set():
            self._hurrying.set()
        else:
            log.info("draining", runs=len(self._held))
        self._draining.set()
        self._changed.set()

    async def serve(self) -> None:
        """Run until drained. Raises RegistrationRefused when the coordinator will never accept this runner."""
        if not await self._unless_draining(self._registration.join()):
            return
        loops = [asyncio.create_task(self._poll()), asyncio.create_task(self._heartbeats.beat())]
        finish = asyncio.create_task(self._finish(loops))
        try:
            await asyncio.wait({*loops, finish}, return_when=asyncio.FIRST_EXCEPTION)
            for task in (*loops, finish):
                if task.done() and not task.cancelled():
                    task.result()
        finally:
            await _cancel(*loops, finish, *self._held, *self._asides, *filter(None, [self._pausing]))
            await self._registration.leave()

    async def _finish(self, loops: Sequence[asyncio.Task[None]]) -> None:
        await self._draining.wait()
        hurrying = asyncio.create_task(self._hurrying.wait())
        try:
            async with asyncio.timeout(self._grace):
                while self._held and not self._hurrying.is_set():
                    await asyncio.wait({*self._held, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            log.info("grace_is_over", runs=len(self._held))
        hurrying.cancel()
        for execution in self._held.values():
            execution.end(Reason.LEAVING)
        if self._held:
            await asyncio.wait(self._held, timeout=self._options.stop_grace_seconds + LAST_LINES_SECONDS)
        await _cancel(*loops)

    async def _poll(self) -> None:
        backoff = Backoff()
        while not self._registration.is_leaving:
            self._changed.clear()
            most = 0 if self._takes_none() else max(0, self._options.concurrency - len(self._held))
            if most == 0 and await self._changes_within(FULL_SECONDS):
                continue
            generation = self._registration.generation
            try:
                await self._poll_once(most)
                backoff.reset()
            except Refused as refused:
                if refused.status == 401 and not self._registration.is_leaving:
                    await self._registration.rejoin(generation)
                    continue
                log.warning("poll_refused", reason=str(refused))
                await backoff.sleep(refused.retry_after)
            except CallFailed as error:
                log.warning("poll_failed", reason=str(error))
                await backoff.sleep()

    async def _poll_once(self, most: int) -> None:
        """Poll once; give up when the runner drains, when a full runner has a free slot, or after a suspension."""
        self._woken = False
        poll = asyncio.create_task(
            self._client.poll(self._registration.runner_id, max_runs=most, seconds=self._registration.poll_seconds)
        )
        try:
            while not poll.done():
                changed = asyncio.create_task(self._changed.wait())
                await asyncio.wait({poll, changed}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                self._changed.clear()
                if not poll.done() and (most == 0 or self._woken or self._takes_none()):
                    return
            answer = await poll
        finally:
            poll.cancel()
        self._stop(answer.get("stop_sessions", []))
        if answer.get("deregistered"):
            self._go_away()
        for run in answer.get("runs", []):
            self._take(run)

    def _takes_none(self) -> bool:
        return self._draining.is_set() or self._pausing is not None

    def _take(self, run: ClaimedRun) -> None:
        """Execute the run as soon as a slot is free; end an earlier claim of the same run first."""
        log.info("claimed", run_id=run["run_id"], session_id=run["session_id"], attempt=run.get("attempt"))
        earlier = [task for task, execution in self._held.items() if execution.run["run_id"] == run["run_id"]]
        for task in earlier:
            self._held[task].end(Reason.LOST)
        execution = self._begin(run, self._reporting)
        task = asyncio.create_task(self._execute(execution, earlier))
        self._held[task] = execution
        task.add_done_callback(self._let_go)

    async def _execute(self, execution: RunExecution, earlier: list[asyncio.Task[None]]) -> None:
        if earlier:
            await asyncio.wait(earlier)
        async with self._slots:
            await execution.perform()

    def _let_go(self, task: asyncio.Task[None]) -> None:
        execution = self._held.pop(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("execution_failed", run_id=execution.run["run_id"], exc_info=error)
        else:
            log.info("execution_ended", run_id=execution.run["run_id"])
            if execution.has_begun:
                self._pauses.reset()

    def _stop(self, sessions: Sequence[str]) -> None:
        for session_id in sessions:
            held = [execution for execution in self._held.values() if execution.run["session_id"] == session_id]
            log.info("told_to_stop", session_id=session_id, runs=len(held))
            for execution in held:
                execution.end(Reason.STOP)
            if not held:
                self._aside(session_id)

    def _aside(self, session_id: str) -> None:
        """Report that nothing of the session runs here, so that its stop need not wait for the stop deadline."""

        async def tell() -> None:
            with suppress(CallFailed):
                await self._client.report_session_status(self._registration.runner_id, session_id, "stopped")

        task = asyncio.create_task(tell())
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)

    def _go_away(self) -> None:
        log.warning("ordered_to_leave", runs=len(self._held))
        self._registration.is_leaving = True
        self._grace = SENT_AWAY_SECONDS if self._grace is None else min(self._grace, SENT_AWAY_SECONDS)
        if not self._draining.is_set():
            self.drain()

    def pause(self, reason: str) -> None:
        """Take no more runs until this machine can execute them; pauses grow while starts keep failing."""
        if self._pausing is None:
            log.error("paused", reason=reason)
            self._pausing = asyncio.create_task(self._until_ready())
            self._changed.set()

    async def _until_ready(self) -> None:
        while True:
            await self._pauses.sleep()
            if self._check() is None:
                break
        log.info("resumed")
        self._pausing = None
        self._changed.set()

    def _wake(self) -> None:
        self._woken = True
        self._changed.set()

    async def _changes_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):  # wait_for would swallow a cancellation (Python 3.11)
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _unless_draining(self, work: Coroutine[Any, Any, None]) -> bool:
        task = asyncio.create_task(work)
        draining = asyncio.create_task(self._draining.wait())
        await asyncio.wait({task, draining}, return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        if not task.done():
            await _cancel(task)
            return False
        task.result()
        return True


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
