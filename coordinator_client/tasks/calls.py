"""Functions under way: in a thread, on an event loop; those in processes have a module of their own."""

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Protocol

from coordinator_client.on_loop import TaskOnLoop, begun_future
from coordinator_client.tasks.outcomes import call, call_async
from coordinator_client.tasks.run import TaskRun
from coordinator_client.tasks.task import Task
from coordinator_client.types import Result


class FunctionCall(Protocol):
    """Function under way.

    Attributes:
        outcome: Done once the function has ended: its result, TaskFailed, RunCancelled or TaskCancelled; CannotStart if
            it never began.
    """

    outcome: "Future[Result | None]"

    def cancel(self) -> None:
        """Ask the function to end."""

    def kill(self) -> None:
        """End the function at once if that can be done; else ask it."""


class ThreadCall:
    """Call in a daemon thread, which cannot be killed: it ends when the function looks at `run.cancelled`.

    Raises RuntimeError when no thread can be started.
    """

    def __init__(self, task: Task[Any], parameters: dict[str, Any], run: TaskRun) -> None:
        self.outcome: Future[Result | None] = begun_future()
        self._run = run
        threading.Thread(
            target=self._call, args=(task, parameters), name=f"{task.name} {run.run_id}", daemon=True
        ).start()

    def cancel(self) -> None:
        self._run.cancel()

    def kill(self) -> None:
        self._run.cancel()

    def _call(self, task: Task[Any], parameters: dict[str, Any]) -> None:
        try:
            result = call(task.function, parameters, self._run)
        except BaseException as error:  # noqa: BLE001 - handed on
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(result)


class LoopCall:
    """Call of a coroutine function as a task of an event loop, which a cancellation cancels."""

    def __init__(
        self, task: Task[Any], parameters: dict[str, Any], run: TaskRun, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._run = run
        self._task = TaskOnLoop(loop, call_async(task.function, parameters, run))
        self.outcome = self._task.outcome

    def cancel(self) -> None:
        self._run.cancel()
        # The loop may be closed.
        with suppress(RuntimeError):
            self._task.cancel()

    def kill(self) -> None:
        self.cancel()
