"""A real `coordinator up` in its own process: started, read, signalled, killed; nothing of it survives a test."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import httpx
import psutil

from devserver.supervisor import ROOT
from runtime.processes import (
    end_processes,
    family,
    is_alive,
    processes_in,
    read_pid_file,
    write_pid_file,
)
from runtime.settings import ALIASES
from testkit.servers import copy_prepared_postgres
from testkit.waiting import eventually

START_SECONDS = 180
UP = (sys.executable, "-m", "cli.main", "up")
# Do not pass the given servers on: the embedded ones of `up` are under test.
OWN_ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ALIASES.values()}


class Up:
    """A `coordinator up`, and every process that it ever had. `python` runs another installation, away from ours."""

    def __init__(self, data_dir: Path, port: int, *arguments: str, python: str = "", **environment: str) -> None:
        if not data_dir.exists():
            copy_prepared_postgres(data_dir)
        self.data_dir = data_dir
        self.port = port
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._popen = subprocess.Popen(
            # Tests of the console build it themselves, once.
            [python or UP[0], *UP[1:], "--data", str(data_dir), "--port", str(port), "--no-console", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**OWN_ENVIRONMENT, **environment},
            cwd=data_dir if python else ROOT,
            text=True,
            start_new_session=True,
        )
        # Record it where the next run looks for what a killed test process has left (testkit/servers.py).
        write_pid_file(data_dir.parent / "run" / f"up-{self.pid}.pid", self.pid)
        assert self._popen.stdout
        assert self._popen.stderr
        self._readers = [
            threading.Thread(target=read, args=(stream, lines), daemon=True)
            for stream, lines in ((self._popen.stdout, self.lines), (self._popen.stderr, self.errors))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def urls(self) -> list[str]:
        return self.line("ready:").split()[1:]

    @property
    def balancer(self) -> str:
        """Return the address of the load balancer."""
        return self.line("balancer: ").split()[1]

    def rolling_deploy(self, within: float = 90) -> "subprocess.CompletedProcess[str]":
        """Do what scripts/rolling_deploy does after the installation; return when it has ended."""
        command = [sys.executable, "-m", "cli.rolling_deploy", "--data", str(self.data_dir)]
        return subprocess.run(
            command, env=OWN_ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=within, check=False
        )

    def line(self, text: str, after: int = 0) -> str:
        """Wait for the first output line that holds `text`, and return it."""

        def find() -> str:
            if self._popen.poll() is not None and not any(reader.is_alive() for reader in self._readers):
                found = next((line for line in self.lines[after:] if text in line), "")
                assert found, f"ended without {text!r}: {self.lines} {self.errors}"
            return next((line for line in self.lines[after:] if text in line), "")

        return eventually(find, START_SECONDS, what=f"{text!r}")

    def process(self, name: str) -> psutil.Process | None:
        """Return the live process that run/NAME.pid names."""
        return read_pid_file(self.data_dir / "run" / f"{name}.pid")

    def running(self, name: str) -> psutil.Process:
        process = eventually(lambda: self.process(name), what=f"process {name}")
        assert process
        return process

    def pid_files(self) -> set[str]:
        return {path.stem for path in (self.data_dir / "run").glob("*.pid")}

    def family(self) -> list[psutil.Process]:
        """Return all processes of this `up`, by their pid files and by descent."""
        named = [process for name in self.pid_files() if (process := self.process(name))]
        return family([*named, psutil.Process(self.pid)] if self._popen.poll() is None else named)

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def wait(self, within: float = 30) -> int:
        """Return its exit code, once everything it wrote is read."""
        code = self._popen.wait(within)
        for reader in self._readers:
            reader.join(5)
        return code

    def end(self) -> None:
        """End it and all it left; for the end of a test, however that ended."""
        if self._popen.poll() is None:
            members = self.family()
            self._popen.send_signal(signal.SIGKILL)
            end_processes([one for one in members if is_alive(one)], within=0)
        left = [process for name in self.pid_files() if (process := self.process(name))]
        left += processes_in(self.data_dir / "postgres" / "cluster", ["postgres"])
        end_processes(family(left), within=0)
        self.wait()


def read(stream: IO[str], lines: list[str]) -> None:
    """Collect a process's output, line by line, until it closes."""
    with stream:
        lines.extend(line.rstrip("\n") for line in stream)


def answers(url: str, path: str = "/health") -> bool:
    """Return whether a web replica answers 200 there."""
    try:
        return httpx.get(url + path, timeout=30).status_code == 200
    except httpx.TransportError:
        return False
