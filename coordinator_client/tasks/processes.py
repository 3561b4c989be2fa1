"""Functions in processes: one for each run, which can be killed and shares no interpreter lock."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from importlib import import_module
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from coordinator_client.on_loop import begun_future
from coordinator_client.tasks.outcomes import CannotStart, TaskFailed, call
from coordinator_client.tasks.run import RunCancelled, TaskRun, Tell
from coordinator_client.tasks.task import Task
from coordinator_client.trace_context import continue_trace
from coordinator_client.types import Result

# Seconds that a process has to end by itself after its function has.
EXIT_SECONDS = 2.0
# Seconds between two looks at whether it lives: processes that it forked keep its pipe open.
LOOK_SECONDS = 1.0
# Signals of a terminal, which are for the runner: until its `setsid` a process belongs to the runner's group.
_OF_TERMINAL = frozenset({signal.SIGINT, signal.SIGHUP})


class ProcessCall:
    """Call in a process of its own, with a process group of its own, and a thread that reads what it sends.

    The process is spawned, so the program must be importable (`if __name__ == "__main__":`). It ends with this one: a
    thread of it kills its group when the pipe is closed.
    """

    def __init__(self, task: Task[Any], parameters: dict[str, Any], details: Mapping[str, Any], tell: Tell) -> None:
        self.outcome: Future[Result | None] = begun_future()
        self._tell = tell
        self._lock = threading.Lock()
        self._is_killed = False
        self._is_cancelled = False
        self._is_listening = False
        # Sent, not passed as arguments: `start` writes those to a pipe of which it holds both ends, and would wait for
        # ever for a process that ends before it reads them.
        self._given = dict(details), parameters
        self._pipe, self._far_end = multiprocessing.Pipe()
        function = task.function
        self._process = multiprocessing.get_context("spawn").Process(
            target=_serve,
            args=(self._far_end, function.__module__, function.__qualname__),
            name=f"{task.name} {details['run_id']}",
        )
        # None once it was awaited: another process may have its id then.
        self._living: SpawnProcess | None = None
        threading.Thread(target=self._attend, name=self._process.name, daemon=True).start()

    def cancel(self) -> None:
        with self._lock:
            self._is_cancelled = True
            self._pass_on_cancellation()

    def _pass_on_cancellation(self) -> None:
        # Not before: the pipe may be full, and the thread of the protocol would wait.
        if self._is_cancelled and self._is_listening:
            with suppress(OSError):
                self._pipe.send("cancel")

    def kill(self) -> None:
        with self._lock:
            self._is_killed = True
            if self._living is not None:
                _kill(self._living)

    def _attend(self) -> None:
        try:
            result = self._converse()
        except BaseException as error:  # noqa: BLE001 - handed on
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(result)

    def _converse(self) -> Result | None:
        try:
            with self._lock:
                if self._is_killed:
                    raise RunCancelled
                # Its first call unblocks SIGINT.
                resource_tracker.ensure_running()
                before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINAL)
                try:
                    self._process.start()
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
                self._living = self._process
        except (OSError, RuntimeError) as error:
            self._pipe.close()
            raise CannotStart(f"no process: {error}") from None
        finally:
            self._far_end.close()
        try:
            self._send_run()
            ended = self._read()
            if ended is not None:
                wait([self._process.sentinel], EXIT_SECONDS)
        finally:
            with self._lock:
                self._living = None
                _kill(self._process)
                self._process.join()
                self._pipe.close()
        match ended:
            case ("completed", result):
                return result  # type: ignore[no-any-return] # as _serve sends it
            case ("failed", str(text), error_class, exit_code):
                raise TaskFailed(text, error_class=error_class, exit_code=exit_code)
            case ("cancelled",):
                raise RunCancelled
            case _ if self._is_killed:
                raise RunCancelled
        exit_code = self._process.exitcode
        raise TaskFailed(f"The process of the function ended {_manner(exit_code)}", exit_code=exit_code)

    def _send_run(self) -> None:
        """Send what the function gets; wait while the process imports the program."""
        try:
            self._pipe.send(self._given)
        except OSError:
            # The process has ended.
            return
        except RecursionError as error:
            raise TaskFailed(f"The run cannot be sent to its process: {error}") from None

    def _read(self) -> tuple[Any, ...] | None:
        """Pass on events until the function's end, which is returned; None if the process ended without one."""
        while True:
            try:
                while not self._pipe.poll(LOOK_SECONDS):
                    if _has_ended(self._process) and not self._pipe.poll():
                        return None
                message: tuple[Any, ...] = self._pipe.recv()
            except (EOFError, OSError):
                return None
            match message:
                case ("listening",):
                    with self._lock:
                        self._is_listening = True
                        self._pass_on_cancellation()
                case ("event", *event):
                    self._tell(*event)
                case _:
                    return message


def _kill(process: SpawnProcess) -> None:
    if process.pid is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()


def _has_ended(process: SpawnProcess) -> bool:
    """Look without awaiting it, which would give its id free."""
    try:
        return os.waitid(os.P_PID, process.pid or 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _manner(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        with suppress(ValueError):
            return f"by {signal.Signals(-exit_code).name}"
    return f"with exit code {exit_code}"


def _serve(pipe: Connection, module: str, name: str) -> None:
    """Execute the function in the process that was made for it."""
    os.setsid()
    # Ctrl-C is for the runner, which cancels.
    for number in _OF_TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_TERMINAL)
    try:
        details, parameters = pipe.recv()
    except EOFError:
        # The runner has ended.
        return
    sending = threading.Lock()

    def send(*message: Any) -> None:
        with sending, suppress(BrokenPipeError):
            pipe.send(message)

    def tell(event_type: str, fields: Mapping[str, Any], timestamp: str) -> None:
        send("event", event_type, dict(fields), timestamp)

    run = TaskRun(details, tell)
    continue_trace(run.traceparent)
    threading.Thread(target=_listen, args=(pipe, run), daemon=True).start()
    send("listening")
    try:
        result = call(_function(module, name), parameters, run)
    except TaskFailed as failed:
        send("failed", str(failed), failed.error_class, failed.exit_code)
    except RunCancelled:
        send("cancelled")
    else:
        send("completed", result)


def _listen(pipe: Connection, run: TaskRun) -> None:
    try:
        while True:
            pipe.recv()
            run.cancel()
    except (EOFError, OSError):
        os.killpg(0, signal.SIGKILL)


def _function(module: str, name: str) -> Any:
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (AttributeError, ImportError) as error:
        raise TaskFailed(f"The function {module}.{name} cannot be imported: {error}") from None
    return found.function if isinstance(found, Task) else found
