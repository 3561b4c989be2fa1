import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from coordinator_client.on_loop import TaskCancelled
from coordinator_client.runner_loop.executions import EVENT_SIZE, DeliveredExecution, Reason, Reporter
from coordinator_client.runner_loop.outbox import MOST_WAITING_SIZE
from coordinator_client.tasks.calls import FunctionCall, LoopCall, ThreadCall
from coordinator_client.tasks.outcomes import CannotStart, TaskFailed
from coordinator_client.tasks.processes import ProcessCall
from coordinator_client.tasks.requests import parameters_of
from coordinator_client.tasks.run import RunCancelled, TaskRun, now
from coordinator_client.tasks.task import Task
from coordinator_client.types import ClaimedRun, Report, Result

# Waiting bytes of a coroutine function, which cannot be blocked; what it logs beyond is left out.
MOST_UNBLOCKED_SIZE = 8 * MOST_WAITING_SIZE


class TaskExecution(DeliveredExecution):
    """Execution of one claimed run by a function.

    Lives on the loop of the protocol. The function runs in a thread, in a process or on `user_loop`, and its outcome
    decides the report.
    """

    def __init__(
        self,
        run: ClaimedRun,
        task: Task[Any] | str,
        reporter: Reporter,
        *,
        user_loop: asyncio.AbstractEventLoop,
        stop_grace_seconds: float,
        pause: Callable[[str], None],
    ) -> None:
        """Execute the task; with a text in its place, fail the run with that error."""
        super().__init__(run, reporter)
        self._task = task
        self._own_loop = asyncio.get_running_loop()
        self._user_loop = user_loop
        self._stop_grace_seconds = stop_grace_seconds
        self._pause = pause
        self._call: FunctionCall | None = None
        self._left_out = 0
        self.has_begun = False

    def end(self, reason: Reason) -> None:
        """Ask the function to end; kill its process after the grace, or at once when the claim is lost."""
        if self._reason is None or reason is Reason.LOST:
            self._reason = reason
        if reason is Reason.LOST:
            self._outbox.refuse()
        if self._call is None or self._call.outcome.done():
            return
        if reason is Reason.LOST:
            self._call.kill()
        elif self._ending is None:
            self._call.cancel()
            self._ending = asyncio.create_task(self._kill_after_grace(self._call))

    def _refuse(self) -> Report | None:
        return self._report("failed", error=self._task) if isinstance(self._task, str) else None

    async def _execute(self) -> Report | None:
        if self._reason is not None or isinstance(self._task, str):
            return self._report_ended_by_us()
        try:
            self._call = self._begin(self._task)
            self.has_begun = True
            result = await asyncio.wrap_future(self._call.outcome)
        except CannotStart as error:
            self.has_begun = False
            self._pause(str(error))
            report = self._report("released")
            report["reason"] = str(error)
            return report
        except (RunCancelled, TaskCancelled):
            return self._report_ended_by_us()
        except TaskFailed as error:
            return self._report_ended_by_us() if self._is_ended_by_us() else self._report_failed(error)
        finally:
            if self._call is not None and not self._call.outcome.done():
                # This is cancelled.
                self._call.kill()
        return await self._conclude(result)

    def _begin(self, task: Task[Any]) -> FunctionCall:
        details = {name: value for name, value in self.run.items() if name != "claim_token"}
        parameters = parameters_of(self.run)
        try:
            if task.in_process:
                return ProcessCall(task, parameters, details, self._tell_from_thread)
            if task.is_async:
                return LoopCall(task, parameters, TaskRun(details, self._tell_from_loop), self._user_loop)
            return ThreadCall(task, parameters, TaskRun(details, self._tell_from_thread))
        except (OSError, RuntimeError) as error:
            # No thread, process or pipe could be made.
            raise CannotStart(str(error)) from None

    async def _conclude(self, result: Result | None) -> Report | None:
        if self._left_out:
            await self._tell_notice(f"{self._left_out} events are left out: the coordinator did not take them in time")
        if self._reason is not None:
            return self._report_ended_by_us()
        if result is not None:
            await self._tell("result", result, now(), 0)
        return self._report("completed")

    def _report_failed(self, error: TaskFailed) -> Report:
        report = self._report("failed", error=str(error))
        if error.error_class is not None:
            report["error_class"] = error.error_class
        if error.exit_code is not None:
            report["exit_code"] = error.exit_code
        return report

    def _is_ended_by_us(self) -> bool:
        return self._reason is not None

    def _report_ended_by_us(self) -> Report | None:
        if self._reason is not Reason.STOP:
            return None
        report = self._report("stopped")
        report["signal"] = "SIGTERM"
        return report

    async def _kill_after_grace(self, call: FunctionCall) -> None:
        await asyncio.sleep(self._stop_grace_seconds)
        call.kill()

    def _tell_from_thread(self, event_type: str, fields: Mapping[str, Any], timestamp: str) -> None:
        """Append an event; block while too many are waiting."""
        # The loop is closed once the runner has left.
        with suppress(RuntimeError):
            put = self._tell(event_type, fields, timestamp, _size(fields))
            try:
                told = asyncio.run_coroutine_threadsafe(put, self._own_loop)
            except RuntimeError:
                put.close()
                raise
            told.result()

    def _tell_from_loop(self, event_type: str, fields: Mapping[str, Any], timestamp: str) -> None:
        with suppress(RuntimeError):
            self._own_loop.call_soon_threadsafe(self._tell_unblocked, event_type, fields, timestamp)

    def _tell_unblocked(self, event_type: str, fields: Mapping[str, Any], timestamp: str) -> None:
        if self._outbox.size > MOST_UNBLOCKED_SIZE:
            self._left_out += 1
            return
        self._outbox.put_nowait(self._event(event_type, fields, timestamp), _size(fields) + EVENT_SIZE)

    async def _tell_notice(self, text: str) -> None:
        content = [{"type": "text", "text": f"[runner] {text}", "notice": True}]
        await self._tell("message", {"role": "system", "content": content}, now(), len(text))


def _size(fields: Mapping[str, Any]) -> int:
    return sum(len(block["text"]) for block in fields["content"])
