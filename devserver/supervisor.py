import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

import psutil

from devserver.console import Console
from devserver.embedded_server import EmbeddedServerError, log_of, pid_file_of
from runtime.processes import end_processes, family, is_alive, reap, write_pid_file

# Directory of the packages: `python -m cli.main` finds them from here, and no directory of the caller shadows them.
ROOT = Path(__file__).resolve().parent.parent
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 15.0
_STEADY_SECONDS = 20.0  # a process older than this is not in a crash loop


def own_command(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "cli.main", *arguments)


class CannotServe(Exception):
    pass


@dataclass(frozen=True)
class Service:
    """Process to keep alive. `signals` end it one after the other, `grace` seconds after each; then SIGKILL.

    To replace it, a second process is started with `trial` added to its command; once that is ready, the first one gets
    `retire` and has `retire_grace` seconds to finish.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    grace: float
    signals: Sequence[int] = (signal.SIGTERM,)
    fds: Sequence[int] = ()
    tells_ready: bool = False
    trial: Sequence[str] = ()
    retire: int = signal.SIGTERM
    retire_grace: float = 30


class Server(Protocol):
    url: str

    @property
    def pid(self) -> int: ...
    @property
    def adopted(self) -> bool: ...
    def alive(self) -> bool: ...
    def stop(self, *, within: float = 10) -> None: ...


class RestartDelay:
    """Delay before the next start: doubles with each death, until a process has lived for 20 s."""

    def __init__(self) -> None:
        self.failures = 0
        self._born = time.monotonic()

    def born(self) -> None:
        self._born = time.monotonic()

    def died(self) -> float:
        if time.monotonic() - self._born > _STEADY_SECONDS:
            self.failures = 0
        self.failures += 1
        return min(_FIRST_DELAY * 2.0 ** (self.failures - 1), _LONGEST_DELAY)


class Child:
    """Process of one service, restarted when it dies; a successor on trial is not restarted."""

    def __init__(self, service: Service, supervisor: "Supervisor", *, on_trial: bool = False) -> None:
        self.service = service
        self.ready = asyncio.Event()
        self.restart_delay = RestartDelay()
        self.on_trial = on_trial
        # Name of its pid file; a successor and a predecessor have names of their own beside the current one's.
        self.title = f"{service.name}.next" if on_trial else service.name
        self.fault = ""
        self._failed = asyncio.Event()
        self._supervisor = supervisor
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    async def run(self) -> None:
        name = self.service.name
        while not self._stopping.is_set():
            self.restart_delay.born()
            try:
                with self._supervisor.starting():
                    self._process = await self._spawn()
                how = describe(await self._process.wait())
            except OSError as error:  # out of memory, descriptors or disk: treated as a death at once
                how = str(error)
            if self._stopping.is_set():
                return
            if self.on_trial:
                self.fault = f"ended ({how})"
                self._failed.set()
                return
            delay = self.restart_delay.died()
            self._supervisor.say(name, f"ended ({how}); starting it again in {delay:g} s{self.log_hint()}")
            self._supervisor.died.set()
            await self._supervisor.end_strays()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    async def until_ready(self, within: float) -> str:
        either = [asyncio.ensure_future(event.wait()) for event in (self.ready, self._failed)]
        await asyncio.wait(either, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        for waiting in either:
            waiting.cancel()
        return self.fault or ("" if self.ready.is_set() else f"was not ready within {within:g} s")

    def rename(self, title: str) -> None:
        if self._supervisor.data_dir:
            with suppress(FileNotFoundError):
                pid_file_of(self._supervisor.data_dir, self.title).replace(
                    pid_file_of(self._supervisor.data_dir, title)
                )
        self.title = title

    async def stop(self, hurry: asyncio.Event, *, retiring: bool = False) -> None:
        signals, grace = self.service.signals, self.service.grace
        if retiring:
            signals, grace = (self.service.retire,), self.service.retire_grace
        self._stopping.set()
        if self._process is None:
            return
        ended = asyncio.ensure_future(self._process.wait())
        hurried = asyncio.ensure_future(hurry.wait())
        for sig in signals:
            if self._process.returncode is None and not hurry.is_set():
                self._send(sig)
                await asyncio.wait({ended, hurried}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if self._process.returncode is None and not ended.done():
            self._supervisor.say(self.service.name, "does not end by itself: killed")
            self._send(signal.SIGKILL)
        await ended
        if self._supervisor.data_dir:
            pid_file_of(self._supervisor.data_dir, self.title).unlink(missing_ok=True)

    def _send(self, sig: int) -> None:
        with suppress(ProcessLookupError):
            if self._process:
                self._process.send_signal(sig)

    async def _spawn(self) -> asyncio.subprocess.Process:
        service, data_dir = self.service, self._supervisor.data_dir
        command, fds = [*service.command, *(service.trial if self.on_trial else ())], list(service.fds)
        told = self._listen(command, fds) if service.tells_ready else None
        log = log_of(data_dir, service.name).open("ab") if data_dir else None
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT if log else None,
                env=dict(service.env),
                cwd=ROOT,
                pass_fds=fds,
                start_new_session=True,
            )
        finally:
            if log:
                log.close()
            if told is not None:
                os.close(told)
        if data_dir:
            write_pid_file(pid_file_of(data_dir, self.title), process.pid)
        return process

    def _listen(self, command: list[str], fds: list[int]) -> int:
        self.ready.clear()
        loop = asyncio.get_running_loop()
        heard, told = os.pipe()

        def hear() -> None:
            if os.read(heard, 64):
                self.ready.set()
            loop.remove_reader(heard)
            os.close(heard)

        loop.add_reader(heard, hear)
        command += ["--ready-fd", str(told)]
        fds.append(told)
        return told

    def log_hint(self) -> str:
        return f"; see {log_of(self._supervisor.data_dir, self.service.name)}" if self._supervisor.data_dir else ""


class KeptServer:
    def __init__(self, name: str, start: Callable[[int | None], Server], supervisor: "Supervisor") -> None:
        self.name = name
        self._start = start
        self._supervisor = supervisor
        self._restart_delay = RestartDelay()
        self._starting: asyncio.Future[Server] | None = None
        self._server: Server | None = None

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server else None

    async def start(self) -> str:
        port = urlsplit(self._server.url).port if self._server else None
        with self._supervisor.starting():
            self._starting = asyncio.ensure_future(asyncio.to_thread(self._start, port))
            # Shielded: if stopped meanwhile, we must still learn which process to stop.
            self._server = await asyncio.shield(self._starting)
        how = "adopted, it was still running" if self._server.adopted else "started"
        self._supervisor.say(self.name, f"{how} (process {self._server.pid}, port {urlsplit(self._server.url).port})")
        return self._server.url

    async def run(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            if self._server and self._server.alive():
                continue
            delay = self._restart_delay.died()
            self._supervisor.say(self.name, f"ended; starting it again in {delay:g} s")
            await asyncio.sleep(delay)
            try:
                self._restart_delay.born()
                await self.start()
            except (EmbeddedServerError, OSError) as error:
                self._supervisor.say(self.name, str(error))

    async def stop(self) -> None:
        if self._starting:
            await asyncio.wait({self._starting}, timeout=3)
            if self._starting.done() and not self._starting.exception():
                self._server = self._starting.result()
        if self._server:
            await asyncio.to_thread(self._server.stop, within=1.5)

    async def forget(self) -> None:
        """Stop the server of a start that `stop` did not wait for; a start that was cut off leaves its pid file."""
        if self._server is None and self._starting and self._supervisor.data_dir:
            await self.stop()
            pid_file_of(self._supervisor.data_dir, self.name).unlink(missing_ok=True)


class Supervisor:
    def __init__(self, console: Console, data_dir: Path | None = None) -> None:
        self.data_dir = data_dir
        self.died = asyncio.Event()
        self.hurry = asyncio.Event()
        self.children: list[Child] = []
        self.servers: list[KeptServer] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._passing: set[int] = set()
        self._starts = 0
        self._no_start_pending = asyncio.Event()
        self._no_start_pending.set()
        self.say = console.say

    def keep(self, service: Service) -> Child:
        child = Child(service, self)
        self.children.append(child)
        self._watch(child.run())
        return child

    async def replace(self, child: Child, within: float) -> str:
        """Start another process of the same service; when it is ready, retire the previous one.

        Returns the fault if the new process was not ready in time: it is ended then, and the previous one stays.
        """
        successor = Child(child.service, self, on_trial=True)
        self.children.insert(self.children.index(child), successor)
        self._watch(successor.run())
        fault = await successor.until_ready(within)
        if fault:
            await successor.stop(self.hurry)
            self.children.remove(successor)
            return fault + successor.log_hint()
        successor.on_trial = False
        child.rename(f"{child.service.name}.former")
        successor.rename(child.service.name)
        await child.stop(self.hurry, retiring=True)
        self.children.remove(child)
        return ""

    async def keep_server(self, name: str, start: Callable[[int | None], Server]) -> str:
        server = KeptServer(name, start, self)
        self.servers.append(server)
        url = await server.start()
        self._watch(server.run())
        return url

    async def run_once(self, command: Sequence[str], env: Mapping[str, str], log: IO[bytes]) -> int:
        with self.starting():
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=dict(env), cwd=ROOT
            )
            self._passing.add(process.pid)
        try:
            return await process.wait()
        finally:
            self._passing.discard(process.pid)

    def _watch(self, duty: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(duty))

    @contextmanager
    def starting(self) -> Iterator[None]:
        self._starts += 1
        self._no_start_pending.clear()
        try:
            yield
        finally:
            self._starts -= 1
            if not self._starts:
                self._no_start_pending.set()

    async def end_strays(self) -> None:
        """End processes that a dead child left; as its orphans they have become our children (Linux)."""
        await self._no_start_pending.wait()
        strays = self._strays()
        if strays:
            await asyncio.to_thread(end_processes, family(strays), within=2)
            reap(strays)

    def _strays(self) -> list[psutil.Process]:
        own = {*(child.pid for child in self.children), *(server.pid for server in self.servers), *self._passing}
        return [child for child in psutil.Process().children() if child.pid not in own]

    async def end(self, order: Iterable[Callable[[str], bool]]) -> None:
        """End the children group by group (by name, in this order), then the servers, then other child processes."""
        pids = {child.pid for child in self.children}
        members = family(process for process in psutil.Process().children() if process.pid in pids)
        for belongs in order:
            group = [child for child in self.children if belongs(child.service.name)]
            await asyncio.gather(*(child.stop(self.hurry) for child in group))
        await asyncio.to_thread(end_processes, [process for process in members if is_alive(process)], within=0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(server.stop() for server in self.servers))
        # Child processes left now were starting when we were told to end, or are orphans.
        await asyncio.to_thread(end_processes, family(psutil.Process().children()), within=0.5)
        await asyncio.gather(*(server.forget() for server in self.servers))
        # A start that was between two processes has started the next one meanwhile.
        await asyncio.to_thread(end_processes, family(psutil.Process().children()), within=0.5)


def describe(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
