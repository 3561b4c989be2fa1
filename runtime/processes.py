import ctypes
import fcntl
import gc
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from random import SystemRandom
from typing import NoReturn

import psutil

# Linux assigns ports from 32768 on to outgoing connections: a server restarting there may find its port taken.
PORTS = range(20_000, 32_768)
MOST_FILES = 1 << 20
# Files that are not connections: logs, listeners, Redis, whatever a library opens.
_OWN_FILES = 128
_PR_SET_CHILD_SUBREAPER = 36


class Locked(Exception):
    def __init__(self, path: Path, holder: int | None) -> None:
        super().__init__(f"{path} is locked by {f'process {holder}' if holder else 'another process'}")
        self.holder = holder


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def process_identity(pid: int) -> str | None:
    """Return a text that distinguishes this process from others with its pid; None when it is gone or a zombie."""
    if sys.platform == "linux":
        # Ticks since boot, not psutil's create_time, which moves when the wall clock is set.
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in {"Z", "X"} else f"{_boot_id()}:{fields[19]}"
    else:  # noqa: RET505  mypy takes what follows a platform's branch for unreachable
        try:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.6f}"
        except psutil.NoSuchProcess:
            return None


def write_pid_file(path: Path, pid: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(f"{pid} {process_identity(pid) or '-'}\n")
    fresh.replace(path)


def read_pid_file(path: Path) -> psutil.Process | None:
    try:
        pid_text, _, mark = path.read_text().strip().partition(" ")
        pid = int(pid_text)
    except (OSError, ValueError):
        return None
    if process_identity(pid) != mark:
        return None
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def processes_in(directory: Path, names: Collection[str]) -> list[psutil.Process]:
    wanted = str(directory.resolve())
    found = []
    for process in psutil.process_iter(["name", "status"]):
        if process.info["name"] not in names or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        try:
            if process.cwd() == wanted:
                found.append(process)
        except psutil.Error:
            continue
    return found


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    members: dict[int, psutil.Process] = {}
    for process in processes:
        members[process.pid] = process
        try:
            members.update((child.pid, child) for child in process.children(recursive=True))
        except psutil.NoSuchProcess:
            continue
    return list(members.values())


def end_processes(processes: Collection[psutil.Process], *, within: float, by: int = signal.SIGTERM) -> None:
    """Signal all of them, wait up to `within` seconds, SIGKILL the rest; return when they are gone.

    Children of ours stay zombies until their parent's code waits for them: `subprocess` reports exit code 0 for a child
    that something else waited for.
    """
    for process in processes:
        send_signal(process, by)
    wait_until(lambda: not any(map(is_alive, processes)), within=within)
    for process in filter(is_alive, processes):
        send_signal(process, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, processes)), within=5)


def reap(children: Iterable[psutil.Process]) -> None:
    """Remove ended children of ours that no other code waits for: adopted orphans."""
    for child in children:
        with suppress(ChildProcessError):
            os.waitpid(child.pid, os.WNOHANG)


def send_signal(process: psutil.Process, sig: int) -> None:
    try:
        process.send_signal(sig)
    except psutil.NoSuchProcess:
        return


def exit_now(code: int) -> NoReturn:
    """End this process at once: tearing Python down changes nothing and took up to 8 s under load."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def tell_ready(descriptor: int | None) -> None:
    """Tell the starting process once, through the pipe that it gave, that this one serves."""
    if descriptor is not None:
        with suppress(BrokenPipeError):  # it was killed meanwhile; we serve on
            os.write(descriptor, b"ready\n")
        os.close(descriptor)


def has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def adopt_orphans() -> None:
    """Adopt orphaned descendants (Linux), so that none is out of sight when its parent is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[int]:
    """Hold an exclusive lock that ends with this process, however it ends. Raises Locked unless `wait`.

    Yields its descriptor: a child that inherits it holds the lock too, also beyond the end of this process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            raise Locked(path, int(holder) if holder.isdigit() else None) from None
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file.fileno()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 below the ephemeral range on which no process listens now."""
    for port in SystemRandom().sample(PORTS, 200):
        if port_is_free(port):
            return port
    raise OSError("no free port between 20000 and 32767 on 127.0.0.1")


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def freeze_gc() -> None:
    """Exempt all loaded objects from garbage collection, and collect less often. Call it after all imports.

    A full collection over the modules of a web framework stops the event loop for tens of milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def allow_connections(most: int | None = None, *, besides: int = 0) -> int:
    """Raise the limit of open files to the hard limit; return the number of connections that this process may take.

    At most `most`, and as many as leave files for `besides` connections to the databases and for its own. Beyond its
    open files a process answers a client with a reset, and no deployed runner survives three of those.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = max(files - _OWN_FILES - besides, files // 2)
    return room if most is None else min(most, room)


def wait_until(condition: Callable[[], bool], *, within: float, every: float = 0.01) -> bool:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True
