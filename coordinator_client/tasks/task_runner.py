import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import uuid4

from coordinator_client.client import CoordinatorClient
from coordinator_client.portal import Portal
from coordinator_client.requests import Identity
from coordinator_client.runner_loop.event_log import log
from coordinator_client.runner_loop.executions import Reporter
from coordinator_client.runner_loop.loop import STOP_GRACE_SECONDS, LoopOptions, RunnerLoop
from coordinator_client.tasks.execution import TaskExecution
from coordinator_client.tasks.requests import runner_tag, task_of, task_tag
from coordinator_client.tasks.run import TaskRun
from coordinator_client.tasks.task import Task
from coordinator_client.types import ClaimedRun

R = TypeVar("R")

# Tags of one registration (PROTOCOL, Runners).
MOST_TAGS: Final = 64


class TaskRunner:
    """Runner that executes runs of tasks by functions of this program, at least once each and never twice at a time.

    Heartbeats, polls and reports have a thread of their own, so they go on while functions block. Plain functions run
    in threads, those with `in_process=True` each in a process, coroutine functions on the loop that serves. A result is
    the function's value; an exception fails the run, with its traceback in the log.

    Tasks without a `concurrency` of their own share one registration at the coordinator; each of the others has its
    own. Making a task runner connects to nothing.

    Args:
        urls: One address of the coordinator or several.
        token: Bearer token of a runner; needed while authentication is on.
        ca_file: PEM file of the authorities to trust for https.
        name: Executor profile: the name under which the coordinator shows this runner.
        tags: Tags that `task_request(…, tags=…)` may demand.
        concurrency: Runs at a time of the tasks that have no `concurrency` of their own.
        grace_seconds: Time that runs have after SIGTERM; None: to their end.
        stop_grace_seconds: Time between the request to end and SIGKILL, for functions in processes.

    Examples:
        >>> runner = TaskRunner("http://127.0.0.1:8765", tags=("gpu",))
        >>> @runner.task("resize")
        ... def resize(parameters, run):
        ...     run.progress(0.5, "half")
        ...     return {"width": parameters["width"]}
        >>> runner.serve()
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        token: str | None = None,
        ca_file: str = "",
        name: str = "tasks",
        tags: Sequence[str] = (),
        concurrency: int = 10,
        grace_seconds: float | None = None,
        stop_grace_seconds: float = STOP_GRACE_SECONDS,
    ) -> None:
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        self._client = partial(CoordinatorClient, urls, token=token, ca_file=ca_file, patience_seconds=0)
        self._name = name
        self._tags = [runner_tag(tag) for tag in tags]
        self._concurrency = concurrency
        self._grace_seconds = grace_seconds
        self._stop_grace_seconds = stop_grace_seconds
        self._tasks: dict[str, Task[Any]] = {}
        # Of the thread of the protocol, while it serves.
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._loops: list[RunnerLoop] = []
        self._drains_asked = 0
        self._drains_done = 0

    def task(
        self, name: str, *, concurrency: int | None = None, in_process: bool = False
    ) -> Callable[[Callable[[dict[str, Any], TaskRun], R]], Task[R]]:
        """Return the decorator that makes a function of parameters and run a task.

        Args:
            name: Name of the task.
            concurrency: Runs at a time of this task in this process; default: those of the runner, shared.
            in_process: Give each run a process of its own.

        Raises:
            ValueError: The name is taken or too long; see `Task` for those of the decorator.
        """
        task_tag(name)
        if name in self._tasks:
            raise ValueError(f"task {name!r} exists")

        def add(function: Callable[[dict[str, Any], TaskRun], R]) -> Task[R]:
            task = Task(name, function, concurrency=concurrency, in_process=in_process)
            self._tasks[name] = task
            return task

        return add

    def serve(self) -> None:
        """Execute runs until SIGTERM, Ctrl-C or a closed terminal, and finish those in hand; a second signal ends them.

        Runs that are ended go on elsewhere if they have attempts left. In another thread than the main one no signals
        are handled: call `drain`.

        Raises:
            ValueError: There is no task, a registration has too many tags, or an address is invalid.
            RegistrationRefused: The coordinator will never accept this runner.
        """
        asyncio.run(self._serve_until_signalled())

    async def _serve_until_signalled(self) -> None:
        # Within `run`, which waits at its end for threads of `asyncio.to_thread`: a signal then ends the program.
        with self._signals():
            await self.serve_async()

    async def serve_async(self) -> None:
        """Do the same on a running event loop, without signals. Cancelling ends the runs."""
        if not self._tasks:
            raise ValueError("a task runner needs a task: decorate a function with `task`")
        self._check_tags()
        if self._own_loop is not None:
            raise RuntimeError("the task runner serves already")
        portal = Portal()
        try:
            serving = portal.start(self._serve(asyncio.get_running_loop()))
            await asyncio.wrap_future(serving.outcome)
        finally:
            await asyncio.to_thread(portal.close)

    def drain(self) -> None:
        """Take no more runs, finish those in hand, then leave; called again: do not finish them. For any thread."""
        self._drains_asked += 1
        if self._own_loop is not None:
            with suppress(RuntimeError):
                self._own_loop.call_soon_threadsafe(self._drain)

    async def _serve(self, user_loop: asyncio.AbstractEventLoop) -> None:
        """Run the loops in the thread of the protocol; the end of one drains the others."""
        async with self._client() as client:
            self._loops = [self._loop(tasks, user_loop, client) for tasks in self._groups()]
            self._own_loop = asyncio.get_running_loop()
            self._drain()
            serving = [asyncio.create_task(loop.serve()) for loop in self._loops]
            try:
                await asyncio.wait(serving, return_when=asyncio.FIRST_COMPLETED)
                if not self._drains_asked:
                    self.drain()
                await asyncio.wait(serving)
                for task in serving:
                    task.result()
            finally:
                self._own_loop = None
                self._drains_asked = self._drains_done = 0
                for task in serving:
                    task.cancel()
                await asyncio.gather(*serving, return_exceptions=True)

    def _drain(self) -> None:
        while self._drains_done < self._drains_asked:
            self._drains_done += 1
            for loop in self._loops:
                loop.drain()

    def _groups(self) -> list[dict[str, Task[Any]]]:
        """Return the tasks by registration: those that share the runner's slots, and each that has its own."""
        shared = {name: task for name, task in self._tasks.items() if task.concurrency is None}
        single = [{name: task} for name, task in self._tasks.items() if task.concurrency is not None]
        return [shared, *single] if shared else single

    def _check_tags(self) -> None:
        tags = max(map(len, self._groups())) + len(self._tags)
        if tags > MOST_TAGS:
            raise ValueError(
                f"tasks without a concurrency of their own and tags of the runner are {tags}, at most {MOST_TAGS}: "
                "give some tasks a concurrency, or divide them among several task runners"
            )

    def _loop(
        self, tasks: dict[str, Task[Any]], user_loop: asyncio.AbstractEventLoop, client: CoordinatorClient
    ) -> RunnerLoop:
        concurrency = next(iter(tasks.values())).concurrency or self._concurrency
        instance = uuid4().hex
        identity = Identity(
            hostname=socket.gethostname(),
            project_dir=str(Path.cwd()),
            executor_profile=self._name,
            executor_type="autonomous",
            # Part of the identity: each process is a runner of its own.
            command=f"{Path(sys.argv[0]).name or 'python'} {instance[:12]}",
            tags=(*map(task_tag, tasks), *self._tags),
            require_matching_tags=True,
            capacity=concurrency,
            instance_id=instance,
        )
        options = LoopOptions(
            identity=identity,
            concurrency=concurrency,
            grace_seconds=self._grace_seconds,
            stop_grace_seconds=self._stop_grace_seconds,
        )

        def begin(run: ClaimedRun, reporter: Reporter) -> TaskExecution:
            return TaskExecution(
                run,
                _found(tasks, run),
                reporter,
                user_loop=user_loop,
                stop_grace_seconds=self._stop_grace_seconds,
                pause=loop.pause,
            )

        loop = RunnerLoop(options, client, begin)
        return loop

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
        before = {number: signal.getsignal(number) for number in numbers}
        for number, handler in before.items():
            # An ignored hang-up (nohup) stays ignored.
            if number is not signal.SIGHUP or handler is not signal.SIG_IGN:
                signal.signal(number, lambda *_: self.drain())
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _found(tasks: dict[str, Task[Any]], run: ClaimedRun) -> Task[Any] | str:
    """Return the task of the run, or why there is none."""
    try:
        name = task_of(run)
    except ValueError as error:
        return str(error)
    if name in tasks:
        return tasks[name]
    log.error("unknown_task", run_id=run["run_id"], task=name)
    return f"This runner has no task {name!r}"
