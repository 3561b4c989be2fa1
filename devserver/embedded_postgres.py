import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from devserver.embedded_server import (
    Access,
    EmbeddedServerError,
    PortTaken,
    ServerProcess,
    choose_access,
    group_of,
    kept_access,
    log_of,
    log_since,
    pid_file_of,
    spawn_server,
    write_private,
)
from devserver.postgres_binaries import find_postgres_binaries, readable_by
from runtime.processes import end_processes, is_alive, locked, processes_in, wait_until, write_pid_file

_NAMES = ("postgres",)
_USER = "coordinator"
_DATABASE = "coordinator"
_START_SECONDS = 300  # recovery after a crash may replay a lot
_STOP_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
# Environment of the server without the caller's variables: PGDATA or PGPORT of a developer's shell would change it.
_ENV = {"LC_ALL": "C", "PATH": os.defpath}
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "password_encryption": "scram-sha-256",
    "fsync": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass(frozen=True, slots=True)
class Home:
    data_dir: Path
    path: Path
    user: int | None

    @property
    def cluster(self) -> Path:
        return self.path / "cluster"

    @property
    def access(self) -> Path:
        return self.path / "access.json"


class PostgresServer:
    """Running embedded Postgres. Outlives the process that started it until `stop` or `kill`."""

    def __init__(self, home: Home, process: ServerProcess, access: Access) -> None:
        self._home = home
        self._process = process
        self.url = _url(access)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def adopted(self) -> bool:
        return self._process.adopted

    def alive(self) -> bool:
        return self._process.alive()

    def stop(self, mode: Literal["fast", "immediate"] = "fast", *, within: float = 10) -> None:
        """Stop the server: `fast` rolls back open transactions, `immediate` crashes cleanly; a harder signal every
        `within` s.
        """
        self._process.end((_STOP_SIGNALS[mode], signal.SIGQUIT, signal.SIGKILL), within)
        pid_file_of(self._home.data_dir, "postgres").unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL the server and all its processes at once, as a power cut would."""
        backends = processes_in(self._home.cluster, _NAMES)
        self._process.signal(signal.SIGKILL)
        end_processes(backends, within=10, by=signal.SIGKILL)
        self._process.wait(10)


def start_postgres(
    data_dir: Path, *, port: int | None = None, settings: Mapping[str, str] | None = None
) -> PostgresServer:
    """Start the Postgres of this data directory, or adopt a running one; return when it accepts connections.

    `settings` are added to postgresql.conf at a start. Password and port are chosen at the first start and kept; the
    database is created empty. Raises EmbeddedServerError, and PortTaken for a requested `port`.
    """
    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    home = Home(data_dir, data_dir / "postgres", _user_for(data_dir / "postgres"))
    home.path.mkdir(exist_ok=True, mode=0o700)
    if home.user is not None:
        os.chown(home.path, home.user, group_of(home.user) or -1)
    with locked(data_dir / "run" / "postgres.lock", wait=True) as lock:
        server = _adopt(home) or _start(home, port, settings or {}, lock)
        _create_database(home, server)
        return server


def kept_url(data_dir: Path) -> str | None:
    """Return the URL of the Postgres of this data directory, running or not; None if there never was one."""
    path = data_dir / "postgres" / "access.json"
    return _url(kept_access(path)) if path.exists() else None


def _url(access: Access) -> str:
    return f"postgresql://{_USER}:{access.password}@127.0.0.1:{access.port}/{_DATABASE}"


def _user_for(path: Path) -> int | None:
    if os.geteuid() != 0:
        return None
    if path.exists() and path.stat().st_uid != 0:
        return path.stat().st_uid
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise EmbeddedServerError("Postgres refuses to run as root, and there is neither a user postgres nor nobody")


def _adopt(home: Home) -> PostgresServer | None:
    pid_file = home.cluster / "postmaster.pid"
    if not pid_file.exists():
        return None
    process = _postmaster(home, pid_file)
    if process and _wait_ready(home, ServerProcess(process)):
        write_pid_file(pid_file_of(home.data_dir, "postgres"), process.pid)
        return PostgresServer(home, ServerProcess(process), kept_access(home.access))
    # Backends of a dead server may take a moment to notice; while they hold its shared memory no new one starts.
    end_processes(processes_in(home.cluster, _NAMES), within=5, by=signal.SIGQUIT)
    pid_file.unlink(missing_ok=True)
    return None


def _postmaster(home: Home, pid_file: Path) -> psutil.Process | None:
    """Return the live process of postmaster.pid, unless another process has that pid (Postgres itself cannot tell)."""
    try:
        process = psutil.Process(int(pid_file.read_text().split("\n", 1)[0]))
        is_ours = is_alive(process) and process.name() in _NAMES and process.cwd() == str(home.cluster)
    except (ValueError, OSError, psutil.Error):
        return None
    return process if is_ours else None


def _start(home: Home, port: int | None, settings: Mapping[str, str], lock: int) -> PostgresServer:
    version_file = home.cluster / "PG_VERSION"
    major = int(version_file.read_text()) if version_file.exists() else None
    binaries = readable_by(home.user, find_postgres_binaries(major))
    if major is None:
        _initialise(home, binaries, choose_access(home.access, port), lock)
    for _ in range(4):
        try:
            return _launch(home, binaries, choose_access(home.access, port), settings)
        except PortTaken:
            if port is not None:
                raise
    return _launch(home, binaries, choose_access(home.access, port), settings)


def _initialise(home: Home, binaries: Path, access: Access, lock: int) -> None:
    """Create the cluster beside its place and rename it, so that a partial one is never started.

    initdb inherits the lock: orphaned by kill -9, it goes on writing, and the next start waits for its end.
    """
    password_file = home.path / "password"
    write_private(password_file, access.password + "\n", home.user)
    with _reachable(home) as (root, pass_fds):
        half_made = root / "cluster.new"
        _run(["rm", "-rf", half_made], home, pass_fds)
        _run(
            [
                *(binaries / "initdb", "-D", half_made, "-U", _USER, f"--pwfile={root / 'password'}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-instructions"),
            ],
            home,
            [*pass_fds, lock],
        )
    password_file.unlink()
    with (home.path / "cluster.new" / "postgresql.conf").open("a") as conf:
        conf.write("\ninclude_if_exists = 'coordinator.conf'\n")
    (home.path / "cluster.new").rename(home.cluster)


def _launch(home: Home, binaries: Path, access: Access, settings: Mapping[str, str]) -> PostgresServer:
    values = {**_SETTINGS, **settings, "port": str(access.port)}
    lines = [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in values.items()]
    write_private(home.cluster / "coordinator.conf", "".join(lines), home.user)
    log = log_of(home.data_dir, "postgres")
    offset = log.stat().st_size if log.exists() else 0
    with _reachable(home) as (root, pass_fds):
        process = spawn_server(
            [binaries / "postgres", "-D", root / "cluster"],
            name="postgres",
            data_dir=home.data_dir,
            env=_ENV,
            user=home.user,
            pass_fds=pass_fds,
        )
    if _wait_ready(home, process):
        return PostgresServer(home, process, access)
    process.end((signal.SIGINT, signal.SIGQUIT, signal.SIGKILL), 5)
    said = log_since(log, offset)
    if "Address already in use" in said:
        raise PortTaken(f"port {access.port} on 127.0.0.1 is already in use")
    raise EmbeddedServerError(f"Postgres did not start; its log {log} ends with:\n{said}")


def _wait_ready(home: Home, process: ServerProcess) -> bool:
    deadline = time.monotonic() + _START_SECONDS

    def is_ready() -> bool:
        try:
            lines = (home.cluster / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(process.pid) and lines[7].strip() == "ready"

    while process.alive() and time.monotonic() < deadline:
        if wait_until(is_ready, within=0.1):
            return True
    return False


def _create_database(home: Home, server: PostgresServer) -> None:
    done = home.path / "database-created"
    if done.exists():
        return
    access = kept_access(home.access)
    binaries = readable_by(home.user, find_postgres_binaries(int((home.cluster / "PG_VERSION").read_text())))
    command = [str(binaries / "createdb"), "-h", "127.0.0.1", "-p", str(access.port), "-U", _USER, _DATABASE]
    made = subprocess.run(command, env={**_ENV, "PGPASSWORD": access.password}, capture_output=True, check=False)
    if made.returncode and b"already exists" not in made.stderr:
        server.stop()
        raise EmbeddedServerError(f"createdb failed: {made.stderr.decode(errors='replace').strip()}")
    done.touch()


@contextmanager
def _reachable(home: Home) -> Iterator[tuple[Path, list[int]]]:
    """Yield a path to `home` for the server's user, and the descriptors to pass.

    Below root's own directories that user cannot reach its data, and we change no permissions of theirs. On Linux an
    inherited descriptor of the directory needs no path.
    """
    if home.user is None or sys.platform != "linux":
        yield home.path, []
        return
    descriptor = os.open(home.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/self/fd/{descriptor}"), [descriptor]
    finally:
        os.close(descriptor)


def _run(command: list[str | Path], home: Home, pass_fds: list[int]) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        cwd="/",
        env=_ENV,
        user=home.user,
        group=group_of(home.user),
        extra_groups=None if home.user is None else [],
        pass_fds=pass_fds,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise EmbeddedServerError(f"{Path(str(command[0])).name} failed: {said}")
