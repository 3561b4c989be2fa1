"""Which number of several alike runners on one machine this one is, so that each has a profile of its own."""

import fcntl
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from runner.own_directory import ensure_own, own_directory

MOST_SLOTS = 1000


class Slot:
    """The lowest number that no other runner of this user with the same command holds; free again when we end.

    A runner that is restarted usually gets its number back, and with it its identity and the sessions bound to it.
    """

    def __init__(self, command: Sequence[str], directory: Path | None = None) -> None:
        self.base = base_name(command)
        self.number = 0
        self._directory = directory
        self._file = -1

    @property
    def profile(self) -> str:
        """The executor profile that follows from it: the command's base name and the number."""
        return f"{self.base}-{self.number}"

    def __enter__(self) -> Self:
        """Take the number. Raises OSError when there is no place for lock files."""
        directory = own_directory("slots") if self._directory is None else self._directory
        ensure_own(directory)
        for number in range(1, MOST_SLOTS + 1):
            file = os.open(directory / f"{self.base}-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
            else:
                self.number, self._file = number, file
                return self
        raise OSError(f"{MOST_SLOTS} runners of {self.base} run here already")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)


def base_name(command: Sequence[str]) -> str:
    """What people call the command: the program's name without its path, of `python -m x` or `python x.py` the x."""
    program = Path(command[0]).name
    if re.fullmatch(r"python[\d.]*", program):
        match command[1:]:
            case ["-m", module, *_]:
                program = module
            case [script, *_] if not script.startswith("-"):
                program = Path(script).stem
    return re.sub(r"[^A-Za-z0-9_.:-]+", "-", program)[:64] or "command"
