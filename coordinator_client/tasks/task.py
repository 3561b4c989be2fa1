import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import update_wrapper
from typing import Any, Generic, TypeVar, Unpack

from coordinator_client.requests import RunRequest
from coordinator_client.tasks.requests import TaskOptions, task_request
from coordinator_client.tasks.run import TaskRun

R = TypeVar("R")


class Task(Generic[R]):
    """Function that a task runner executes; calling it calls the function.

    Attributes:
        name: Name of the task.
        function: The function.
        concurrency: Runs at a time in this process; None: those of the runner, shared with its other tasks.
        in_process: True if each run has a process of its own.

    Raises:
        TypeError: The function does not take the parameters and the run.
        ValueError: A function for processes cannot be imported, or is asynchronous.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[dict[str, Any], TaskRun], R],
        *,
        concurrency: int | None = None,
        in_process: bool = False,
    ) -> None:
        if isinstance(function, Task):
            function = function.function
        try:
            inspect.signature(function).bind({}, None)
        except TypeError as error:
            raise TypeError(f"task {name!r} must take the parameters and the run: {error}") from None
        is_async = inspect.iscoroutinefunction(function)
        if concurrency is not None and concurrency < 1:
            raise ValueError(f"concurrency of task {name!r} must be at least 1")
        if in_process and (is_async or "<" in function.__qualname__):
            raise ValueError(f"task {name!r} for processes must be a plain function at the top of a module")
        # First: it copies the attributes of the function, whatever their names.
        update_wrapper(self, function)
        self.name = name
        self.function: Callable[[dict[str, Any], TaskRun], R] = function
        self.concurrency = concurrency
        self.in_process = in_process
        self.is_async = is_async

    def __call__(self, parameters: dict[str, Any], run: TaskRun) -> R:
        return self.function(parameters, run)

    def request(
        self, parameters: Mapping[str, Any] | None = None, *, tags: Sequence[str] = (), **options: Unpack[TaskOptions]
    ) -> RunRequest:
        """Return the request for a run of this task; see `task_request`."""
        return task_request(self.name, parameters, tags=tags, **options)
