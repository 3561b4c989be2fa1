"""Notes of process groups, by which the next runner of the same user ends those of a killed one.

A runner that ends by itself ends its processes. A killed one cannot, and its runs are given to other runners, perhaps
on this machine: the same work would run twice.
"""

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import structlog

from runner.guard import kill_marked
from runner.state_dir import notes_name, state_directory

log = structlog.stdlib.get_logger("runner")


class OrphanNotes:
    """Notes of our process groups, one file each, in a directory of this user; without a directory nothing is noted."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory: Path | None = None
        try:
            self._directory = state_directory(notes_name("groups")) if directory is None else directory
        except OSError as error:
            log.warning("no_orphan_notes", reason=str(error))
            self._directory = None

    def note(self, group: int, mark: str = "") -> None:
        if self._directory is None:
            return
        with suppress(OSError, psutil.Error):
            runner = os.getpid()
            note = {"started": _started(group), "mark": mark, "runner": runner, "runner_started": _started(runner)}
            (self._directory / str(group)).write_text(json.dumps(note))

    def forget(self, group: int) -> None:
        if self._directory is not None:
            with suppress(OSError):
                (self._directory / str(group)).unlink(missing_ok=True)

    def end(self) -> list[int]:
        ended: list[int] = []
        for path in [] if self._directory is None else sorted(self._directory.iterdir()):
            try:
                group, note = int(path.name), json.loads(path.read_text())
                if _is_alive(int(note["runner"]), float(note["runner_started"])):
                    continue
                started, mark = float(note["started"]), str(note.get("mark", ""))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # half written, or not a note
            if _is_alive(group, started):
                log.warning("killing_orphans", group=group)
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
    """Return True if this very process runs; another one may have its number by now."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 0.02 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
