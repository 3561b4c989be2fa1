"""Real processes of the coordinator on a test's database: started, watched, frozen and killed by pid."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from runtime.processes import write_pid_file
from testkit.ports import own_port
from testkit.prefork import Fork, ForkServer
from testkit.process_guard import MARK
from testkit.servers import POOLED
from testkit.waiting import eventually

COMMAND = Path(sys.executable).with_name("coordinator")
START_SECONDS = 30
# Shorten waits meant for people: tests end processes all the time.
QUICK = {"drain_seconds": 0, "graceful_shutdown_seconds": 1, "worker_grace_seconds": 1, "log_format": "json"}


class Process:
    """Running process. `url` is empty unless it serves HTTP."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes] | Fork, log_file: Path, url: str = "") -> None:
        self.name = name
        self.url = url
        self._popen = popen
        self._log_file = log_file

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._popen.poll()

    def log(self) -> str:
        """Return everything it has written so far."""
        return self._log_file.read_text(errors="replace")

    def kill(self) -> None:
        """Send SIGKILL and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self._popen.wait(30)

    def terminate(self) -> None:
        """Send SIGTERM; use `wait` for its end."""
        self.signal(signal.SIGTERM)

    def freeze(self) -> None:
        """Send SIGSTOP: it stops within whatever it does, with its connections open."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        if self.alive:
            self._popen.send_signal(number)

    def wait(self, within: float = 30) -> int:
        """Return its exit code as soon as it ends."""
        return self._popen.wait(within)

    def stop(self, within: float = 10) -> None:
        """End it in order, or with SIGKILL if it does not end within so many seconds."""
        self.thaw()
        self.terminate()
        try:
            self.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()


# A runner whose coordinator or proxy has gone before it tries for 5 s to say that it leaves.
RUNNER_LEAVE_SECONDS = 1.5


@dataclass
class Cluster:
    """Processes that share a database and a Redis; all end with the test."""

    directory: Path
    database_url: str
    redis_url: str
    fork_server: ForkServer | None = None
    processes: list[Process] = field(default_factory=list)
    # Variables besides the settings, for processes that are started from now on.
    environment: dict[str, str] = field(default_factory=dict)
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    def start_web(self, *, wait: bool = True, **settings: object) -> Process:
        """Start a web process on a free port and wait until it is ready. `settings` as in runtime/settings.py."""
        port = own_port()
        arguments = ["web", "--host", "127.0.0.1", "--port", str(port)]
        process = self.start("web", arguments, settings, url=f"http://127.0.0.1:{port}")
        if wait:
            self.wait_until_ready(process)
        return process

    def start_worker(self, *arguments: str, wait: bool = True, **settings: object) -> Process:
        """Start a worker process and wait until it logs that it is ready."""
        process = self.start("worker", ["worker", *arguments], settings)
        if wait:
            self.wait_until_ready(process)
        return process

    def start_processes(
        self, *, webs: int = 2, workers: int = 2, **settings: object
    ) -> tuple[list[Process], list[Process]]:
        """Start so many web and worker processes side by side, and wait until all are ready."""
        started_webs = [self.start_web(wait=False, **settings) for _ in range(webs)]
        started_workers = [self.start_worker(wait=False, **settings) for _ in range(workers)]
        for web in started_webs:
            self.wait_until_ready(web)
        for worker in started_workers:
            self.wait_until_ready(worker)
        return started_webs, started_workers

    def wait_until_ready(self, process: Process) -> None:
        """Wait until a web process serves, or a worker process logs that it works."""
        if process.url:
            self.wait_until(process, lambda: answers(f"{process.url}/health/ready"), "ready")
        else:
            self.wait_until(process, lambda: "worker is ready" in process.log(), "ready")

    def start(
        self,
        kind: str,
        arguments: list[str],
        settings: Mapping[str, object] | None = None,
        *,
        url: str = "",
        fds: Sequence[int] = (),
        code: Path | None = None,
    ) -> Process:
        """Start `coordinator` with any arguments and these file descriptors, without waiting; `code` is a directory
        whose packages come before ours.
        """
        name = f"{kind}-{next(self._numbers)}"
        log_file = self.directory / f"{name}.log"
        env = {**self._environment(settings or {}), **({"PYTHONPATH": str(code)} if code else {})}
        popen: subprocess.Popen[bytes] | Fork
        with log_file.open("wb") as log, Path(os.devnull).open("rb") as nothing:
            if self.fork_server and self.fork_server.suits(arguments, env) and not fds:
                popen = self.fork_server.start(arguments, env=env, cwd=self.directory, files=(nothing, log, log))
            else:
                popen = subprocess.Popen(
                    [str(COMMAND), *arguments],
                    stdin=nothing,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=env,
                    cwd=self.directory,
                    pass_fds=fds,
                    start_new_session=True,
                )
        process = Process(name, popen, log_file, url)
        self.processes.append(process)
        # The next run finds it by this file if this one is killed.
        write_pid_file(self.directory / "run" / f"{name}.pid", popen.pid)
        return process

    def wait_until(self, process: Process, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition of a process that must not die meanwhile; the error holds the end of its log."""

        def done() -> bool:
            return not process.alive or condition()

        try:
            eventually(done, START_SECONDS, what=f"{process.name}: {what}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{process.log()[-4000:]}") from None
        if not process.alive:
            raise AssertionError(f"{process.name} ended with {process.exit_code}\n{process.log()[-4000:]}")

    def stop(self) -> None:
        """End all processes: SIGTERM to all first, so that they end side by side."""
        for process in self.processes:
            process.thaw()
            process.terminate()
        begun = time.monotonic()
        for process in self.processes:
            patience = RUNNER_LEAVE_SECONDS if process.name.startswith("runner") else 10
            process.stop(max(0.0, begun + patience - time.monotonic()))

    def _environment(self, settings: Mapping[str, object]) -> dict[str, str]:
        wanted = {"database_url": self.database_url, "redis_url": self.redis_url, **QUICK, **settings}
        ours = {f"COORDINATOR_{name.upper()}": str(value) for name, value in wanted.items()}
        # PYTHONPATH makes the tests of an earlier release start its code (tests/migrations/test_last_release.py).
        return {**inherited("PATH", "HOME", "LANG", "PYTHONPATH"), "PYTHONUNBUFFERED": "1", **self.environment, **ours}


def inherited(*names: str) -> dict[str, str]:
    """Return our own environment with the settings that processes need behind a pooler."""
    return {name: os.environ[name] for name in (*names, MARK, *POOLED) if name in os.environ}


def answers(url: str) -> bool:
    """Return whether a GET is answered with 200 within a second."""
    try:
        with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310 our own http:// address
            return bool(response.status == 200)
    except OSError:
        return False
