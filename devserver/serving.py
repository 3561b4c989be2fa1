import asyncio
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from devserver.background_build import build_in_background
from devserver.console import Console, Format
from devserver.embedded import EmbeddedServerError, start_postgres, start_redis
from devserver.embedded_server import log_of, log_since
from devserver.load_balancer import NAME as BALANCER
from devserver.load_balancer import balancer, find_caddy, until_balanced
from devserver.rolling import Rolling, lock_of
from devserver.supervisor import CannotServe, Child, Service, Supervisor, own_command
from devserver.token_files import ADMIN_FILE, RUNNER_FILE
from runtime.processes import (
    Locked,
    adopt_orphans,
    end_processes,
    family,
    has_terminal,
    is_alive,
    locked,
    read_pid_file,
    send_signal,
)

HOST = "127.0.0.1"
_SERVERS = {"postgres", "redis"}
_PATIENCE = 3  # deaths in a row before the first `ready` after which we give up
# Seconds to end: twice the first, then the longer of the others, then the databases' 1.5: in all less than 10.
_RUNNER_GRACE, _WEB_GRACE, _WORKER_GRACE = 1.5, 4.0, 4.0
# Seconds beyond a process's longest end after which it counts as hanging.
_MARGIN = 3.0
# Withheld from the runner, whose commands are other people's: database addresses, and the caller's key.
_SECRETS = ("COORDINATOR_DATABASE_URL", "COORDINATOR_REDIS_URL", "DATABASE_URL", "REDIS_URL", "COORDINATOR_TOKEN")


@dataclass(frozen=True)
class Wanted:
    port: int
    web: int
    workers: int
    runner: bool
    auth: bool
    lb_port: int | None
    data_dir: Path
    log_format: Format
    database_url: str
    redis_url: str
    drain_seconds: float
    shutdown_seconds: float
    worker_seconds: float
    metrics_port: int = 0
    console: bool = True

    @property
    def urls(self) -> list[str]:
        return [f"http://{HOST}:{self.port + number}" for number in range(self.web)]


@dataclass(frozen=True)
class Listeners:
    """Listening sockets, held by this process: `web` of the replicas and then the balancer, `metrics` of workers."""

    web: list[socket.socket]
    metrics: list[socket.socket]


async def serve(wanted: Wanted) -> int:
    """Serve until SIGINT or SIGTERM, then end everything; return the exit code.

    SIGHUP replaces the replicas one by one. Raises CannotServe when serving cannot begin.
    """
    console = Console(wanted.log_format)
    make_private(wanted.data_dir)
    with ExitStack() as held:
        try:
            held.enter_context(locked(lock_of(wanted.data_dir)))
        except Locked as error:
            by = f" (process {error.holder})" if error.holder else ""
            raise CannotServe(f"another `coordinator up`{by} already serves {wanted.data_dir}") from None
        caddy = None if wanted.lb_port is None else find_caddy()
        await asyncio.to_thread(_end_leftovers, wanted.data_dir, console)
        listeners = held.enter_context(_listening(wanted))
        metrics = held.enter_context(_listening_for_metrics(wanted))
        adopt_orphans()
        supervisor = Supervisor(console, wanted.data_dir)
        return await _run(wanted, supervisor, console, Listeners(listeners, metrics), caddy)


def make_private(data_dir: Path) -> None:
    """Create the directory with mode 0700, or close an existing one to other users.

    Raises CannotServe for a directory of another user, and for one with other content, which is left open.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not data_dir.stat().st_mode & 0o077:
        return
    if not lock_of(data_dir).exists() and any(data_dir.iterdir()):
        raise CannotServe(
            f"{data_dir} holds other files and is open to other users; name another directory by --data, "
            f"or chmod 700 {data_dir}"
        )
    try:
        data_dir.chmod(0o700)
    except OSError as error:
        raise CannotServe(f"{data_dir} is open to other users and cannot be closed: {error.strerror}") from None


async def _run(
    wanted: Wanted, supervisor: Supervisor, console: Console, listeners: Listeners, caddy: Path | None
) -> int:
    stop = asyncio.Event()
    rolling = Rolling(supervisor, wanted.data_dir, console)
    had_terminal = has_terminal()

    def told(name: str) -> None:
        if stop.is_set():
            supervisor.hurry.set()
        else:
            console.say("up", f"{name}: ending everything (again: at once)")
        stop.set()

    def hung_up() -> None:
        # SIGHUP is also sent when the terminal that we were started from is closed.
        if had_terminal and not has_terminal():
            told(signal.SIGHUP.name)
        elif not stop.is_set():
            rolling.ask()

    loop = asyncio.get_running_loop()
    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, told, sig.name)
    loop.add_signal_handler(signal.SIGHUP, hung_up)
    beginning = asyncio.create_task(_begin(wanted, supervisor, rolling, console, listeners, caddy))
    ending = asyncio.create_task(_ending(stop, wanted.data_dir))
    try:
        await asyncio.wait({beginning, ending}, return_when=asyncio.FIRST_COMPLETED)
        if beginning.done():
            beginning.result()
        await ending
        return 0
    except (CannotServe, EmbeddedServerError, OSError) as error:
        console.say("up", "giving up: ending everything")
        raise CannotServe(str(error)) from error
    finally:
        beginning.cancel()
        ending.cancel()
        await asyncio.gather(beginning, ending, rolling.stop(), return_exceptions=True)
        # End runners first: they report and leave through the web. Databases end after their clients.
        await supervisor.end([lambda name: name.startswith("runner"), lambda name: not name.startswith("runner")])
        console.say("up", "ended")


async def _ending(stop: asyncio.Event, data_dir: Path) -> None:
    """Wait for the order to stop. Raises CannotServe when the data directory is removed meanwhile: new data would go
    elsewhere.
    """
    path = lock_of(data_dir)
    held = path.stat().st_ino
    while not stop.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1)
        if not path.exists() or path.stat().st_ino != held:
            raise CannotServe(f"{data_dir} was removed while it was served from")


async def _begin(
    wanted: Wanted,
    supervisor: Supervisor,
    rolling: Rolling,
    console: Console,
    listeners: Listeners,
    caddy: Path | None,
) -> None:
    database_url, redis_url = await _servers(wanted, supervisor)
    env = child_environment(
        COORDINATOR_DATABASE_URL=database_url,
        COORDINATOR_REDIS_URL=redis_url,
        COORDINATOR_LOG_FORMAT=wanted.log_format,
    )
    await _migrate(supervisor, wanted.data_dir, console, env)
    if wanted.auth:
        env = {**env, "COORDINATOR_AUTH": "1"}
        await _keep_keys(supervisor, wanted.data_dir, console, env)
    sockets = listeners.web[: wanted.web]
    replicas = [supervisor.keep(_web(number, listener, wanted, env)) for number, listener in enumerate(sockets, 1)]
    workers = [
        supervisor.keep(_worker(number, listener, wanted, env)) for number, listener in enumerate(listeners.metrics, 1)
    ]
    await _all_ready(supervisor, wanted.data_dir, _told_by(replicas), (*replicas, *workers))
    if caddy and wanted.lb_port is not None:
        service = balancer(caddy, wanted.data_dir, listeners.web[-1].fileno(), wanted.urls, wanted.drain_seconds)
        await _all_ready(supervisor, wanted.data_dir, until_balanced(HOST, wanted.lb_port), (supervisor.keep(service),))
    console.metrics([f"http://{HOST}:{listener.getsockname()[1]}/metrics" for listener in listeners.metrics])
    console.ready(wanted.urls)
    if wanted.lb_port is not None:
        console.balancer(f"http://{HOST}:{wanted.lb_port}")
    build = partial(
        build_in_background, wanted.data_dir, f"{wanted.urls[0]}/console", child_environment(), supervisor, console
    )
    rolling.allow(lambda: _migrate(supervisor, wanted.data_dir, console, env), build if wanted.console else None)
    if wanted.runner:
        supervisor.keep(_runner(wanted.urls, wanted.data_dir / RUNNER_FILE, env))
    if wanted.console:
        await build()


async def _servers(wanted: Wanted, supervisor: Supervisor) -> tuple[str, str]:
    data_dir, database_url, redis_url = wanted.data_dir, wanted.database_url, wanted.redis_url
    if not database_url:
        database_url = await supervisor.keep_server("postgres", lambda port: start_postgres(data_dir, port=port))
    if not redis_url:
        redis_url = await supervisor.keep_server("redis", lambda port: start_redis(data_dir, port=port))
    return database_url, redis_url


async def _migrate(supervisor: Supervisor, data_dir: Path, console: Console, env: dict[str, str]) -> None:
    """Migrate the schema in a separate process, so that this one need not load the libraries."""
    path = log_of(data_dir, "migrate")
    offset = path.stat().st_size if path.exists() else 0
    with path.open("ab") as log:
        code = await supervisor.run_once(own_command("migrate"), env, log)
    said = log_since(path, offset)
    if code:
        raise CannotServe(f"the database could not be migrated; {path} ends with:\n{said}")
    console.say("migrate", said.rpartition("\n")[2])


async def _keep_keys(supervisor: Supervisor, data_dir: Path, console: Console, env: dict[str, str]) -> None:
    file, path = data_dir / ADMIN_FILE, log_of(data_dir, "keys")
    previous = file.read_text() if file.is_file() else ""
    with path.open("ab") as log:
        if await supervisor.run_once(own_command("keys", "keep", "--data", str(data_dir)), env, log):
            raise CannotServe(f"the keys of --auth could not be made; see {path}")
    if (token := file.read_text()) != previous:
        # A log would show it to all its readers.
        is_seen = console.on_terminal
        shown = f"shown once and kept in {file}: {token.strip()}" if is_seen else f"kept in {file}, mode 0600"
        console.say("up", f"admin key, {shown}")


def _web(number: int, listener: socket.socket, wanted: Wanted, env: dict[str, str]) -> Service:
    name, fd = f"web-{number}", listener.fileno()
    return Service(
        name,
        own_command("web", "--fd", str(fd), "--name", name),
        env,
        grace=_WEB_GRACE,
        # SIGINT, not SIGTERM: no other replica remains to drain to.
        signals=(signal.SIGINT,),
        fds=(fd,),
        tells_ready=True,
        trial=("--successor",),
        retire=signal.SIGUSR1,
        retire_grace=wanted.drain_seconds + wanted.shutdown_seconds + _MARGIN,
    )


def _worker(number: int, metrics: socket.socket, wanted: Wanted, env: dict[str, str]) -> Service:
    name, fd = f"worker-{number}", metrics.fileno()
    return Service(
        name,
        own_command("worker", "--name", name, "--metrics-fd", str(fd)),
        env,
        grace=_WORKER_GRACE,
        signals=(signal.SIGINT,),
        fds=(fd,),
        tells_ready=True,
        retire_grace=wanted.worker_seconds + _MARGIN,
    )


def _runner(urls: list[str], token_file: Path, env: dict[str, str]) -> Service:
    addresses = [part for url in urls for part in ("--url", url)]
    command = own_command("runner", *addresses, "--name", "demo", "--concurrency", "4", "--")
    harmless = {name: value for name, value in env.items() if name not in _SECRETS}
    if token_file.is_file():
        harmless["COORDINATOR_TOKEN_FILE"] = str(token_file)
    # The first signal finishes the runs in hand, the second ends them.
    return Service(
        "runner-1",
        (*command, sys.executable, "-m", "runner.demo"),
        harmless,
        grace=_RUNNER_GRACE,
        signals=(signal.SIGTERM, signal.SIGTERM),
    )


async def _told_by(replicas: Iterable[Child]) -> None:
    for replica in replicas:
        await replica.ready.wait()


async def _all_ready(
    supervisor: Supervisor, data_dir: Path, told: Coroutine[Any, Any, None], children: Iterable[Child]
) -> None:
    ready = asyncio.create_task(told)
    try:
        while not ready.done():
            died = asyncio.ensure_future(supervisor.died.wait())
            await asyncio.wait({ready, died}, return_when=asyncio.FIRST_COMPLETED)
            died.cancel()
            supervisor.died.clear()
            for child in children:
                if child.restart_delay.failures >= _PATIENCE:
                    path = log_of(data_dir, child.service.name)
                    raise CannotServe(f"{child.service.name} does not start; {path} ends with:\n{log_since(path, 0)}")
    finally:
        ready.cancel()


@contextmanager
def _listening(wanted: Wanted) -> Iterator[list[socket.socket]]:
    with ExitStack() as held:
        sockets: list[socket.socket] = []
        balancers = () if wanted.lb_port is None else (wanted.lb_port,)
        for port in (*range(wanted.port, wanted.port + wanted.web), *balancers):
            row = f"--port (--web {wanted.web} takes that many in a row)"
            option = "--lb-port" if len(sockets) == wanted.web else row
            sockets.append(held.enter_context(_listen(port, option)))
        yield sockets


@contextmanager
def _listening_for_metrics(wanted: Wanted) -> Iterator[list[socket.socket]]:
    """Hold a port for each worker's metrics: a row from the one that is set, else free ones."""
    first = wanted.metrics_port
    with ExitStack() as held:
        ports = range(first, first + wanted.workers) if first else [0] * wanted.workers
        yield [held.enter_context(_listen(port, "COORDINATOR_METRICS_PORT")) for port in ports]


def _listen(port: int, option: str) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else "there is no such port"
        raise CannotServe(
            f"port {port} on {HOST} cannot be used{_owner_of(port)}: {reason}. "
            f"Nothing was started; choose another with {option}."
        ) from None
    return listener


def _owner_of(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f", process {connection.pid} ({psutil.Process(connection.pid).name()}) listens there"
    except psutil.Error:
        pass
    return ""


def _end_leftovers(data_dir: Path, console: Console) -> None:
    files = [path for path in (data_dir / "run").glob("*.pid") if path.stem not in _SERVERS]
    left = {path.stem: process for path in files if (process := read_pid_file(path))}
    if left:
        names = ", ".join(f"{name} (process {process.pid})" for name, process in sorted(left.items()))
        console.say("up", f"ending processes of a previous `up`: {names}")
    members = family(left.values())
    runners = [process for name, process in left.items() if name.startswith("runner")]
    replicas = [process for name, process in left.items() if name.startswith("web")]
    end_processes(runners, within=2)
    end_processes([process for name, process in left.items() if name == BALANCER], within=0.5)
    for replica in replicas:
        send_signal(replica, signal.SIGINT)
    end_processes([process for name, process in left.items() if name.startswith("worker")], within=_WORKER_GRACE)
    end_processes(replicas, within=1)
    end_processes([process for process in members if is_alive(process)], within=0)
    for path in files:
        path.unlink(missing_ok=True)


def child_environment(**decided: str) -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1", **decided}
