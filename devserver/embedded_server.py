import json
import os
import pwd
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from runtime.processes import free_port, is_alive, port_is_free, send_signal, write_pid_file

LOG_LIMIT = 16 * 1024 * 1024


class EmbeddedServerError(Exception):
    pass


class PortTaken(EmbeddedServerError):
    pass


@dataclass(frozen=True, slots=True)
class Access:
    """Port and password of a server. Chosen at its first start and kept, so that clients survive its restarts."""

    port: int
    password: str


class ServerProcess:
    def __init__(self, process: psutil.Process, child: subprocess.Popen[bytes] | None = None) -> None:
        self._process = process
        self._child = child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def adopted(self) -> bool:
        return self._child is None

    def alive(self) -> bool:
        return self._child.poll() is None if self._child else is_alive(self._process)

    def signal(self, sig: int) -> None:
        send_signal(self._process, sig)

    def wait(self, within: float) -> bool:
        try:
            if self._child:
                self._child.wait(within)
            else:
                self._process.wait(within)
        except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
            return False
        return True

    def end(self, signals: Sequence[int], within: float) -> None:
        """Send the signals one after the other, each if the process outlived the previous one by `within` seconds."""
        for sig in signals:
            self.signal(sig)
            if self.wait(within):
                return


def spawn_server(
    command: Sequence[str | Path],
    *,
    name: str,
    data_dir: Path,
    env: Mapping[str, str],
    user: int | None = None,
    pass_fds: Sequence[int] = (),
) -> ServerProcess:
    """Start a server in its own session (Ctrl-C reaches us only), output to logs/NAME.log, pid in run/NAME.pid."""
    with log_of(data_dir, name).open("ab") as log:
        child = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=pass_fds,
            cwd="/",
            env=dict(env),
            user=user,
            group=group_of(user),
            extra_groups=None if user is None else [],
        )
    write_pid_file(pid_file_of(data_dir, name), child.pid)
    return ServerProcess(psutil.Process(child.pid), child)


def group_of(user: int | None) -> int | None:
    return None if user is None else pwd.getpwuid(user).pw_gid


def pid_file_of(data_dir: Path, name: str) -> Path:
    return data_dir / "run" / f"{name}.pid"


def log_of(data_dir: Path, name: str) -> Path:
    """Return the log file of a process; one longer than LOG_LIMIT is renamed to NAME.log.1 first."""
    path = data_dir / "logs" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))
    return path


def choose_access(path: Path, port: int | None) -> Access:
    """Return the access stored in `path` (0600), or a new one; change its port on request or if the old one is taken.

    Raises PortTaken when the requested port is not free.
    """
    kept = Access(**json.loads(path.read_text())) if path.exists() else None
    if port is not None and not port_is_free(port):
        raise PortTaken(f"port {port} on 127.0.0.1 is already in use")
    if kept is None:
        access = Access(port or free_port(), secrets.token_urlsafe(24))
    elif port or not port_is_free(kept.port):
        access = replace(kept, port=port or free_port())
    else:
        return kept
    write_private(path, json.dumps(asdict(access)))
    return access


def kept_access(path: Path) -> Access:
    return Access(**json.loads(path.read_text()))


def write_private(path: Path, text: str, owner: int | None = None) -> None:
    """Replace a file atomically; at no moment can a user other than `owner` (default: ours) read it."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    if owner is not None:
        os.chown(fresh, owner, -1)
    fresh.replace(path)


def log_since(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(offset, file.tell() - 4096))
        return file.read().decode(errors="replace").strip()
