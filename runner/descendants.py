import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog

from runner import guard
from runner.orphans import OrphanNotes

_PR_SET_CHILD_SUBREAPER = 36

log = structlog.stdlib.get_logger("runner")


class Descendants:
    """Registry of every job's process group and mark; reports them to the guard and to the notes for the next runner.

    On Linux the runner is the subreaper: processes that lose their parent become its children, are ended with their
    job, and are reaped when they end by themselves. Elsewhere only the groups are known.
    """

    def __init__(self, orphan_notes: OrphanNotes | None = None) -> None:
        self._orphan_notes = orphan_notes
        self._jobs: dict[int, str] = {}
        self._starting: set[str] = set()
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """End what a killed runner left, become the subreaper (Linux), and start the guard."""
        if self._orphan_notes is not None:
            self._orphan_notes.end()
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self.reap)
        self._start_guard()

    def close(self) -> None:
        self._kill(self._strays())
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._guard.wait(1)
        if sys.platform == "linux":
            asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)

    @contextmanager
    def starting(self, mark: str) -> Iterator[None]:
        """Suppress orphan cleanup while the process with this mark is starting: its group is known only afterwards. If
        the runner is killed meanwhile, the guard finds it by the mark.
        """
        self._starting.add(mark)
        self._tell_guard(f"? {mark}")
        try:
            yield
        finally:
            if mark in self._starting:
                self._starting.discard(mark)
                self._tell_guard(f"! {mark}")

    def begun(self, group: int, mark: str) -> None:
        self._starting.discard(mark)
        self._jobs[group] = mark
        if self._orphan_notes is not None:
            self._orphan_notes.note(group, mark)
        self._tell_guard(f"+ {group} {mark}")

    async def ended(self, group: int) -> None:
        mark = self._jobs.pop(group)
        for _ in range(guard.ROUNDS):
            if not self._kill(self._strays(mark)):
                break
            await asyncio.sleep(guard.ROUND_SECONDS)
        else:
            log.warning("processes_left", group=group)
        if self._orphan_notes is not None:
            self._orphan_notes.forget(group)
        self._tell_guard(f"- {group}")

    def outside(self, group: int) -> list[int]:
        mark = self._jobs.get(group)
        if sys.platform != "linux" or mark is None:
            return []
        found = {*guard.descendants([group]), *self._with_descendants(self._strays(mark))}
        return [pid for pid in found if guard.status_of(pid) not in ("Z", "X", None) and _group_of(pid) != group]

    def reap(self) -> None:
        if self._starting:
            return
        for pid in self._orphans():
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    def _orphans(self) -> list[int]:
        own = {*self._jobs, self._guard.pid if self._guard else 0}
        return [pid for pid in guard.children_of(os.getpid()) if pid not in own]

    def _strays(self, mark: str | None = None) -> list[int]:
        """Return orphans of the job with this mark, or of ended jobs; all orphans if no other job is at work, marked or
        not.

        PID 1 also inherits orphans of others: those without a mark are left alone.
        """
        if sys.platform != "linux" or (self._starting and mark is None):
            return []
        working = set(self._jobs.values()) - {mark}
        is_alone = not working and not self._starting and os.getpid() != 1
        strays: list[int] = []
        for pid in self._orphans():
            found = guard.mark_of(pid)
            is_ended = found is not None and found not in working and not self._starting
            if is_alone or is_ended or (found is not None and found == mark):
                strays.append(pid)
        return strays

    def _kill(self, strays: list[int]) -> bool:
        alive = [pid for pid in self._with_descendants(strays) if guard.status_of(pid) not in ("Z", "X", None)]
        for pid in alive:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        self.reap()
        return bool(alive)

    @staticmethod
    def _with_descendants(pids: list[int]) -> list[int]:
        return list(dict.fromkeys([*pids, *guard.descendants(pids)]))

    def _start_guard(self) -> None:
        try:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            self._guard = None
            log.warning("guard_not_started", reason=str(error))

    def _tell_guard(self, line: str) -> None:
        if self._guard is not None and not self._write(line):
            log.warning("guard_killed", pid=self._guard.pid)
            self._guard.wait()
            self._start_guard()
            known = [
                *(f"+ {group} {mark}" for group, mark in self._jobs.items()),
                *(f"? {mark}" for mark in self._starting),
            ]
            self._write("\n".join(known))

    def _write(self, text: str) -> bool:
        pipe = self._guard.stdin if self._guard else None
        try:
            if pipe is not None:
                pipe.write(f"{text}\n".encode())
                pipe.flush()
        except OSError:
            return False
        return pipe is not None


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0
