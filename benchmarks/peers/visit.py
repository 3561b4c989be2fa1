import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import orjson
import psutil

from benchmarks.cluster import Servers
from benchmarks.loads_runs import PROMPT
from benchmarks.peers.driver import CLIENTS, Place
from benchmarks.peers.environments import Environment, reason
from benchmarks.peers.roster import Peer
from benchmarks.stage import LoadFailed, Processes, Stage, Window, measured, started
from devserver.supervisor import ROOT
from runtime.processes import end_processes, family, free_port, port_is_free, wait_until, write_pid_file

START_SECONDS: Final = 90
# Time that a load may take beyond its window.
LOAD_SECONDS: Final = 150
END_SECONDS: Final = 5
RUNNERS: Final = 64


class NotStarted(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Extent:
    seconds: float
    samples: int


@dataclass(frozen=True, slots=True)
class Visit:
    submissions: float
    lives: float
    start_p50_ms: float
    cpu_ms_a_life: float


def visit_ours(stage: Stage, extent: Extent) -> Visit:
    with stage.cluster() as cluster:
        start = stage.run(cluster, "submit-to-runner", samples=extent.samples)
        lives = stage.run(cluster, "lives", seconds=extent.seconds, runners=RUNNERS)
        submissions = stage.run(cluster, "submissions", seconds=extent.seconds, clients=CLIENTS)
    shares = sum(share for name, share in lives.items() if name.startswith("cpu_"))
    return Visit(submissions["rate"], lives["rate"], start["p50"], 10 * shares / lives["rate"])


def visit(peer: Peer, environment: Environment, servers: Servers, directory: Path, extent: Extent) -> Visit:
    with _running(peer, environment, servers, Path(tempfile.mkdtemp(dir=directory))) as running:
        start, _ = running.load("starts", samples=extent.samples)
        lives, shares = running.load("lives", seconds=extent.seconds)
        if not peer.works_always:
            running.end_workers()
        submissions, _ = running.load("submissions", seconds=extent.seconds)
    return Visit(submissions["rate"], lives["rate"], start["p50"], 10 * sum(shares.values()) / lives["rate"])


class _Running:
    def __init__(self, peer: Peer, environment: Environment, servers: Servers, directory: Path) -> None:
        self._peer = peer
        self._environment = environment
        self._servers = servers
        self._directory = directory
        url = servers.fresh_database()
        self._ports = [free_port() for _ in range(peer.ports)]
        names = {f"port{number}": str(port) for number, port in enumerate(self._ports)}
        self._names = {**names, "home": str(directory / "data"), "asyncpg_url": url.replace("://", "+asyncpg://", 1)}
        redis_url = urlunsplit(urlsplit(servers.redis.url)._replace(path=""))
        self._place = Place(url, redis_url, self._ports, PROMPT)
        self._server: list[subprocess.Popen[bytes]] = []
        self._workers: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        if self._peer.server:
            command = [part.format_map(self._names) for part in self._peer.server]
            settings = {name: value.format_map(self._names) for name, value in self._peer.server_settings.items()}
            server = self._spawn("server", command, settings)
            self._server.append(server)
            listening = self._ports[: self._peer.listens]
            wait_until(
                lambda: server.poll() is not None or not any(map(port_is_free, listening)),
                within=START_SECONDS,
                every=0.1,
            )
            if server.poll() is not None or any(map(port_is_free, listening)):
                raise NotStarted(self._said("server"))
        prepare = self._spawn("prepare", self._command("prepare"))
        try:
            code = prepare.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            end_processes(family([psutil.Process(prepare.pid)]), within=0)
            raise NotStarted("the database was not prepared in time") from None
        if code:
            raise NotStarted(self._said("prepare"))
        for number in range(self._peer.workers):
            self._workers.append(self._spawn(f"worker-{number}", self._command("work")))

    def load(self, name: str, **arguments: float) -> tuple[dict[str, float], dict[str, float]]:
        window = Window(self._processes)
        limit = arguments.get("seconds", 0) + LOAD_SECONDS
        with (
            self._log(name).open("wb") as log,
            started(name, arguments, self._command("load"), self.child_environment(), log) as generator,
        ):
            # A library may hang in a thread, where the load's own limits do not reach.
            timer = Timer(limit, generator.kill)
            timer.start()
            try:
                figures = measured(name, generator, window)
            except LoadFailed as failed:
                late = generator.returncode == -signal.SIGKILL
                why = f"{name} not done within {limit:.0f} s" if late else f"{failed}: {self._said(name)}"
                raise LoadFailed(f"{why}{self._ended_workers()}") from None
            finally:
                timer.cancel()
        return figures, window.cpu

    def end_workers(self) -> None:
        _end(self._workers)
        self._workers.clear()

    def end(self) -> None:
        _end([*self._workers, *self._server])

    def child_environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("COORDINATOR_")}
        return {**inherited, "PATH": f"{self._environment.path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def _processes(self) -> Processes:
        groups = {"workers": self._workers, "server": self._server}
        pids = {"postgres": self._servers.postgres.pid, "redis": self._servers.redis.pid}
        return {
            **{name: family(_alive(processes)) for name, processes in groups.items()},
            **{name: family([psutil.Process(pid)]) for name, pid in pids.items()},
        }

    def _command(self, verb: str) -> tuple[str, ...]:
        place = orjson.dumps(self._place).decode()
        return (str(self._environment.python), "-m", "benchmarks.peers.driver", self._peer.name, place, verb)

    def _spawn(
        self, name: str, command: Sequence[str], settings: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with self._log(name).open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.child_environment(), **(settings or {})},
                cwd=self._directory,
                start_new_session=True,
            )
        # A killed benchmark's processes are ended by the next one.
        write_pid_file(self._directory / "run" / f"{name}.pid", process.pid)
        return process

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def _said(self, name: str) -> str:
        return reason(self._log(name).read_text(errors="replace"), f"{name} said nothing")

    def _ended_workers(self) -> str:
        ended = [number for number, worker in enumerate(self._workers) if worker.poll() is not None]
        return "".join(f"; worker {number} had ended: {self._said(f'worker-{number}')}" for number in ended)


@contextmanager
def _running(peer: Peer, environment: Environment, servers: Servers, directory: Path) -> Iterator[_Running]:
    running = _Running(peer, environment, servers, directory)
    try:
        running.start()
        yield running
    finally:
        running.end()


def _alive(processes: Sequence[subprocess.Popen[bytes]]) -> list[psutil.Process]:
    return [psutil.Process(process.pid) for process in processes if process.poll() is None]


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    members = family(_alive(processes))
    end_processes(members, within=END_SECONDS, by=signal.SIGTERM)
