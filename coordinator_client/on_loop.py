import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

R = TypeVar("R")


class TaskCancelled(Exception):
    """Outcome of a cancelled coroutine: not asyncio's own exception, which would cancel the task that waits for it."""


class TaskOnLoop(Generic[R]):
    """Coroutine that another thread's event loop runs; `outcome` is done once it has ended, also when cancelled.

    A future of `asyncio.run_coroutine_threadsafe` is done as soon as it is cancelled, before the coroutine's cleanup.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, R]) -> None:
        """Start the coroutine. Raises RuntimeError if the loop is closed."""
        self.outcome: Future[R] = begun_future()
        self._loop = loop
        self._task: asyncio.Task[R] | None = None
        try:
            loop.call_soon_threadsafe(self._start, coroutine)
        except RuntimeError:
            coroutine.close()
            raise

    def cancel(self) -> None:
        self._loop.call_soon_threadsafe(self._cancel)

    def _start(self, coroutine: Coroutine[Any, Any, R]) -> None:
        self._task = self._loop.create_task(coroutine)
        self._task.add_done_callback(self._settle)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _settle(self, task: "asyncio.Task[R]") -> None:
        if task.cancelled():
            self.outcome.set_exception(TaskCancelled())
        elif (error := task.exception()) is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(task.result())


def begun_future() -> "Future[Any]":
    """Return a future that a waiting task's cancellation leaves alone."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future
