"""Process that ends a runner's jobs when the runner is gone, also after `kill -9` or the kernel's out-of-memory killer.

Uses the standard library only; the runner starts it with one end of a pipe as stdin. Lines name a job that is being
started (`? MARK`), that was not (`! MARK`), and a job's process group that has begun (`+ GROUP MARK`) or ended
(`- GROUP`); the end of the file is the end of the runner. A parent-death
signal would reach the job's first process only, is tied to the thread that started it, is cleared by some programs, and
needs code between fork and exec; the guard reaches every process that the job has started.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

# Environment variable of every process that a job starts: finds a process that has left the group.
MARK = "COORDINATOR_RUN_PROCESSES"
# Rounds of search and kill at most: a killed process may just have started another.
ROUNDS = 20
ROUND_SECONDS = 0.02
# Time in which a process that was being started shows its mark: between fork and exec it has the runner's environment.
START_SECONDS = 2.0


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    jobs: dict[int, tuple[str, str | None]] = {}
    starting: set[str] = set()
    for line in sys.stdin:
        match line.split():
            case ["?", mark]:
                starting.add(mark)
            case ["!", mark]:
                starting.discard(mark)
            case ["+", group, mark]:
                starting.discard(mark)
                jobs[int(group)] = mark, started_at(int(group))
            case ["-", group]:
                jobs.pop(int(group), None)
    for group, (_, started) in jobs.items():
        kill_group(group, started)
    kill_marked({mark for mark, _ in jobs.values()})
    kill_starting(starting)


def kill_starting(marks: Collection[str]) -> None:
    """Kill the processes of jobs of which the runner did not learn the group before it was gone."""
    deadline = time.monotonic() + START_SECONDS
    while marks and not kill_marked(marks) and time.monotonic() < deadline:
        time.sleep(ROUND_SECONDS)


def kill_group(group: int, started: str | None) -> None:
    """Kill the group, unless its number belongs to another process by now, one that started at another time."""
    # Without a process of that number the group is still the same: its number is not reused while it lives.
    if started_at(group) in (started, None):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def kill_marked(marks: Collection[str], name: str = MARK) -> list[int]:
    killed: list[int] = []
    for _ in range(ROUNDS if marks else 0):
        found = [pid for pid in pids() if pid != os.getpid() and mark_of(pid, name) in marks]
        found = [pid for pid in (*found, *descendants(found)) if status_of(pid) not in ("Z", "X", None)]
        if not found:
            break
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed += found
        time.sleep(ROUND_SECONDS)
    return killed


def pids() -> Iterator[int]:
    with suppress(OSError):
        yield from (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def mark_of(pid: int, name: str = MARK) -> str | None:
    """Return the mark in the environment that the process started with; None without a mark or without permission."""
    try:
        found = re.search(rb"(?:^|\0)" + name.encode() + rb"=([^\0]*)", Path(f"/proc/{pid}/environ").read_bytes())
    except OSError:
        return None
    return found[1].decode(errors="replace") if found else None


def children_of(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += map(int, (thread / "children").read_bytes().split())
    return found


def descendants(roots: Collection[int]) -> list[int]:
    """Return all descendants of these processes without the roots; processes that lost their parent are not found."""
    found: dict[int, None] = {}
    left = list(roots)
    while left:
        fresh = [child for child in children_of(left.pop()) if child not in found]
        found.update(dict.fromkeys(fresh))
        left += fresh
    return list(found)


def started_at(pid: int) -> str | None:
    """Return the start time in ticks since boot, which tells the process from a later one of the same id.

    None when there is no such process, or no /proc.
    """
    fields = _stat(pid)
    return fields[19] if fields else None


def status_of(pid: int) -> str | None:
    fields = _stat(pid)
    return fields[0] if fields else None


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


if __name__ == "__main__":
    main()
