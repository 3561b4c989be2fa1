"""Start `coordinator` as a fork of a process that has imported its modules already.

A start takes 0.2 s of CPU then, instead of 1 s. In all else a fork is a process as any other: its session,
environment, files and signals are its own, it runs `cli.main.main` with its arguments, and a test kills it by its pid.
"""

import gc
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import IO, Any

from testkit.waiting import pause_after

_ROOT = Path(__file__).parents[1]
# How these start, and what their command lines show, is under test.
_NEVER_FORKED = ("runner", "up", "watch", "top")
_IMPORTED_BY_COMMANDS = (
    *("app.main", "server.http_server", "workers.main", "models.schema.migrate", "models.auth.audit"),
    *("alembic.config", "cli.views", "coordinator_client.client", "httpx", "rich.console"),
)
# The interpreter reads these when it starts.
_READ_AT_START = ("PYTHON", "LC_", "LANG")


class Fork:
    """Process that was forked for us, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int, server: "ForkServer") -> None:
        self.pid = pid
        self._server = server
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            self._code = self._server.ask({"pid": self.pid})
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        begin = time.monotonic()
        while (code := self.poll()) is None:
            waited = time.monotonic() - begin
            if timeout is not None and waited > timeout:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(pause_after(waited))
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class ForkServer:
    """Process that forks others on request; it is started by the first request, and ends with us."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._popen: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket

    @staticmethod
    def suits(arguments: Sequence[str], env: Mapping[str, str]) -> bool:
        """Return whether a fork does the same as this command: not if its interpreter would start with other paths or
        another encoding.
        """
        read = {name: value for name, value in env.items() if name.startswith(_READ_AT_START)}
        return arguments[0] not in _NEVER_FORKED and read.items() <= _own_environment().items()

    def start(self, arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, files: Sequence[IO[bytes]]) -> Fork:
        """Start `coordinator` with these arguments, and these files as its stdin, stdout and stderr."""
        request = {"arguments": list(arguments), "env": dict(env), "cwd": str(cwd)}
        pid = self.ask(request, *(file.fileno() for file in files))
        assert pid
        return Fork(pid, self)

    def ask(self, request: Mapping[str, object], *fds: int) -> int | None:
        with self._lock:
            if self._popen is None:
                self._launch()
            socket.send_fds(self._connection, [json.dumps(request).encode() + b"\n"], fds)
            answer: int | None = json.loads(self._connection.recv(64))
            return answer

    def close(self) -> None:
        if self._popen is not None:
            self._connection.close()
            self._popen.wait(30)
            self._popen = None

    def _launch(self) -> None:
        self._connection, theirs = socket.socketpair()
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "testkit.prefork", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_own_environment(),
                cwd=_ROOT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )


def _own_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


def _serve(connection: socket.socket) -> None:
    while True:
        data, fds, *_ = socket.recv_fds(connection, 1 << 20, 3)
        while data and not data.endswith(b"\n"):
            data += connection.recv(1 << 20)
        if not data:
            return
        request = json.loads(data)
        answer = _ended(request["pid"]) if "pid" in request else _fork(request, fds, connection)
        connection.sendall(json.dumps(answer).encode())


def _ended(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _fork(request: dict[str, Any], files: list[int], connection: socket.socket) -> int:
    pid = os.fork()
    if pid:
        for file in files:
            os.close(file)
        return pid
    code = 1
    try:
        os.setsid()
        connection.close()
        for fd, file in enumerate(files):
            os.dup2(file, fd)
            os.close(file)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv = ["coordinator", *request["arguments"]]
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    from cli.main import main

    for module in _IMPORTED_BY_COMMANDS:
        import_module(module)

    gc.collect()
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
