import fcntl
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from runner.state_dir import ensure_own, state_directory

MOST_SLOTS = 1000

log = structlog.stdlib.get_logger("runner")


class Slot:
    """Lowest number that no other runner of this user with the same command holds; free again when this process ends.

    A restarted runner usually gets its number back, and with it its identity and the sessions bound to it. Without a
    place for locks the number is 1 until the coordinator refuses it: see `advance`.
    """

    def __init__(self, command: Sequence[str], directory: Path | None = None) -> None:
        self.base = base_name(command)
        self.number = 0
        # True if the previous holder did not leave: the coordinator may still know it as online.
        self.was_abandoned = False
        self._directory = directory
        self._file = -1

    @property
    def profile(self) -> str:
        return f"{self.base}-{self.number}"

    def __enter__(self) -> Self:
        if self._directory is None:
            try:
                self._directory = state_directory("slots")
            except OSError as error:
                log.warning("no_locks", reason=str(error))
        else:
            ensure_own(self._directory)
        self.advance()
        return self

    def advance(self) -> None:
        """Take the next free number: the current one belongs to a runner that our locks do not show.

        That is a runner of another user, of another machine, or of a container with the same hostname. Raises OSError
        when all are taken.
        """
        self._let_go()
        for number in range(self.number + 1, MOST_SLOTS + 1):
            if self._lock(number):
                self.number = number
                return
        raise OSError(f"{MOST_SLOTS} runners of {self.base} run here already")

    def registered(self) -> None:
        self._write(f"{os.getpid()}\n")

    def left(self) -> None:
        self._write("")

    def _lock(self, number: int) -> bool:
        if self._directory is None:
            return True
        file = -1
        try:
            file = os.open(self._directory / f"{self.base}-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if file >= 0:
                os.close(file)
            if not isinstance(error, BlockingIOError):
                # A file system without locks, or a full one: continue as without a directory.
                log.warning("no_locks", reason=str(error))
                self._directory = None
            return self._directory is None
        self._file = file
        self.was_abandoned = os.fstat(file).st_size > 0
        return True

    def _write(self, text: str) -> None:
        if self._file >= 0:
            with suppress(OSError):
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, text.encode(), 0)

    def _let_go(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
        self.was_abandoned = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()


def base_name(command: Sequence[str]) -> str:
    program = Path(command[0]).name
    if re.fullmatch(r"python[\d.]*", program):
        match command[1:]:
            case ["-m", module, *_]:
                program = module
            case [script, *_] if not script.startswith("-"):
                program = Path(script).stem
    return re.sub(r"[^A-Za-z0-9_.:-]+", "-", program)[:64] or "command"
