"""Check whether this machine can execute a run at the moment: its own troubles must not fail runs."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

# A process takes three pipes and one more to report a failed exec; a call to the coordinator and notes take some too.
SPARE_FILES = 16


class Readiness:
    def __init__(
        self, command: Sequence[str], directory: str, troubled: Callable[[str], None] = lambda _: None
    ) -> None:
        self._program = command[0]
        self._directory = directory
        self.troubled = troubled

    def check(self) -> str | None:
        if not _is_directory(Path(self._directory)):
            return f"{self._directory} is not a directory that can be entered"
        if not self._has_program():
            return f"{self._program} is not a program that can be started from {self._directory}"
        return _no_files()

    def _has_program(self) -> bool:
        if os.sep in self._program:
            # Resolved as exec does: from the directory that the process is started in.
            return _is_program(Path(self._directory, self._program))
        return any(_is_program(Path(folder, self._program)) for folder in os.get_exec_path())


def _is_directory(path: Path) -> bool:
    with suppress(PermissionError):
        return path.is_dir() and _may_execute(path)
    return False


def _is_program(path: Path) -> bool:
    with suppress(PermissionError):
        return path.is_file() and _may_execute(path)
    return False


def _may_execute(path: Path) -> bool:
    """Check with the rights that exec has, capabilities included: plain access(2) checks the real user without them."""
    return os.access(path, os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _no_files() -> str | None:
    opened: list[int] = []
    try:
        for _ in range(SPARE_FILES // 2):
            opened += os.pipe()
    except OSError as error:
        return f"no more files can be opened: {error.strerror}"
    finally:
        for descriptor in opened:
            with suppress(OSError):
                os.close(descriptor)
    return None
