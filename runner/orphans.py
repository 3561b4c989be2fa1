"""Processes of runners that were killed: the next runner of the same user ends them.

A runner that ends by itself takes its processes along. One that is killed cannot, and its runs are given to others, on
this machine perhaps: the same work twice, side by side.
"""

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import structlog

from runner.guard import kill_marked
from runner.state_dir import notes_name, own_directory

log = structlog.stdlib.get_logger("runner")


class Leftovers:
    """A note for each process group of ours, in a directory of this user; nothing is noted where none can be made."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory: Path | None = None
        try:
            self._directory = own_directory(notes_name("groups")) if directory is None else directory
        except OSError as error:
            log.warning("no_notes_of_processes", reason=str(error))
            self._directory = None

    def note(self, group: int, mark: str = "") -> None:
        """Remember a process group that was just started by this process, and the mark of all that it starts."""
        if self._directory is None:
            return
        with suppress(OSError, psutil.Error):
            runner = os.getpid()
            note = {"started": _started(group), "mark": mark, "runner": runner, "runner_started": _started(runner)}
            (self._directory / str(group)).write_text(json.dumps(note))

    def forget(self, group: int) -> None:
        """The group has ended."""
        if self._directory is not None:
            with suppress(OSError):
                (self._directory / str(group)).unlink(missing_ok=True)

    def end(self) -> list[int]:
        """Kill the groups whose runner is gone, and what has left them; which processes they were."""
        ended: list[int] = []
        for path in [] if self._directory is None else sorted(self._directory.iterdir()):
            try:
                group, note = int(path.name), json.loads(path.read_text())
                if _is_alive(int(note["runner"]), float(note["runner_started"])):
                    continue
                started, mark = float(note["started"]), str(note.get("mark", ""))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # half written, or not ours
            if _is_alive(group, started):
                log.warning("ending_leftover", group=group)
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)
                ended.append(group)
            if mark:
                ended += kill_marked({mark})
            self.forget(group)
        return ended


def _started(pid: int) -> float:
    return psutil.Process(pid).create_time()


def _is_alive(pid: int, started: float) -> bool:
    """Whether that very process still runs: the same number may belong to another one by now."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 0.02 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
