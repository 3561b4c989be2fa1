"""Both coordinators as processes: theirs alone, ours with two replicas, a worker and databases of its own."""

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from compat.environment import RUNNER, SERVER, Environment
from testkit.cluster import answers
from testkit.ports import own_port, own_ports
from testkit.up_process import Up
from testkit.waiting import eventually

START_SECONDS: Final = 60.0
END_SECONDS: Final = 40.0


@dataclass(frozen=True, slots=True)
class Coordinator:
    """Coordinator at its addresses; `directory` is for what its clients write."""

    name: str
    urls: Sequence[str]
    directory: Path


class Program:
    """Program of the checkout, with its output in a file."""

    def __init__(self, command: Sequence[str], directory: Path, variables: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                command,
                cwd=directory,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait(self, seconds: float = END_SECONDS) -> int | None:
        """Return the exit code; None if it has not ended by then."""
        with suppress(subprocess.TimeoutExpired):
            return self._popen.wait(seconds)
        return None

    def interrupt(self) -> None:
        if self.alive:
            self._popen.send_signal(signal.SIGINT)

    def end(self) -> None:
        self.interrupt()
        if self.wait(10) is None:
            self._popen.kill()
            self._popen.wait()


@contextmanager
def theirs(environment: Environment, directory: Path) -> Iterator[Coordinator]:
    port = own_port()
    url = f"http://127.0.0.1:{port}"
    server = Program(
        [str(environment.python), "-m", "uvicorn", "main:app", "--host", "127.0.0.1", "--port", str(port)],
        environment.checkout / SERVER,
        environment.variables(**their_variables(directory)),
        directory / "coordinator.log",
    )
    try:
        eventually(lambda: answers(f"{url}/health") or not server.alive, START_SECONDS, every=0.1, what="theirs")
        if not server.alive:
            raise AssertionError(f"their coordinator ended:\n{server.log()[-2000:]}")
        yield Coordinator("theirs", [url], directory)
    finally:
        server.end()


def their_variables(directory: Path) -> dict[str, str]:
    registries = directory / "registries"
    for name in ("agents", "capabilities", "scripts", "mcp-servers"):
        (registries / name).mkdir(parents=True, exist_ok=True)
    return {
        "AGENT_ORCHESTRATOR_DB_PATH": str(directory / "coordinator.db"),
        "AGENT_ORCHESTRATOR_AGENTS_DIR": str(registries / "agents"),
    }


@contextmanager
def ours(directory: Path) -> Iterator[Coordinator]:
    up = Up(directory / "up", own_ports(2), "--web", "2", "--workers", "1", "--no-runner")
    try:
        yield Coordinator("ours", up.urls, directory)
    finally:
        up.end()


@contextmanager
def runner_of(
    environment: Environment, coordinator: Coordinator, url: str, profile: str, mcp_port: int = 0
) -> Iterator[Program]:
    """Start their runner with a profile of theirs, and wait until the coordinator lists it."""
    runner = start_runner(environment, coordinator, url, profile, mcp_port)
    try:
        eventually(lambda: not runner.alive or profile in profiles(url), START_SECONDS, every=0.1, what=profile)
        if not runner.alive:
            raise AssertionError(f"their runner ended:\n{runner.log()[-2000:]}")
        yield runner
    finally:
        runner.end()


def start_runner(
    environment: Environment, coordinator: Coordinator, url: str, profile: str, mcp_port: int = 0
) -> Program:
    project = coordinator.directory / f"project-{profile}"
    project.mkdir(exist_ok=True)
    script = environment.checkout / RUNNER / "agent-runner"
    command = [str(environment.python), str(script), "--profile", profile, "--coordinator-url", url]
    command += ["--project-dir", str(project), *(["--mcp-port", str(mcp_port)] if mcp_port else [])]
    log = coordinator.directory / f"runner-{profile}-{time.monotonic_ns()}.log"
    return Program(command, project, environment.variables(PROJECT_DIR=str(project)), log)


def profiles(url: str) -> set[str]:
    return {runner["executor_profile"] for runner in httpx.get(f"{url}/runners", timeout=30).json()["runners"]}
