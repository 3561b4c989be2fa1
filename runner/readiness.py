"""Whether this machine can carry a run out at the moment: what is wrong with it is no run's fault."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

# A process takes three pipes and one more to tell of a failed exec; a call to the coordinator and notes take some too.
SPARE_FILES = 16


class Readiness:
    """Checks for what each run needs; `troubled` is called with the reason when it is missing, or a start failed."""

    def __init__(
        self, command: Sequence[str], directory: str, troubled: Callable[[str], None] = lambda _: None
    ) -> None:
        self._program = command[0]
        self._directory = directory
        self.troubled = troubled

    def check(self) -> str | None:
        """Why no process could be started now, None when nothing speaks against it."""
        if not os.access(self._directory, os.X_OK) or not Path(self._directory).is_dir():
            return f"{self._directory} is not a directory that can be entered"
        if not self._has_program():
            return f"{self._program} is not a program that can be started from {self._directory}"
        return _no_files()

    def _has_program(self) -> bool:
        if os.sep in self._program:
            # As exec finds it: from the directory that the process is started in.
            path = Path(self._directory, self._program)
            return path.is_file() and os.access(path, os.X_OK)
        return shutil.which(self._program) is not None


def _no_files() -> str | None:
    """Why SPARE_FILES more files cannot be opened."""
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
