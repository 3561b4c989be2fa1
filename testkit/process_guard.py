"""End what a test process has started once it is gone, also after two Ctrl-C, SIGKILL or a time limit."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

# Variable in the environment of everything that a test process starts.
MARK = "TEST_PROCESSES"
_ROOT = Path(__file__).parents[1]


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Clear the scratch directory and kill marked processes when this process ends, in order or not."""
    os.environ[MARK] = uuid4().hex
    command = [sys.executable, "-m", "testkit.process_guard", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=_ROOT, start_new_session=True):
        yield
    del os.environ[MARK]


def _guard(path: Path) -> None:
    """Wait for the end of the process that holds our stdin, then end what it has left."""
    sys.stdin.buffer.read()
    # Import it late: it is slow, and a light process is enough for the wait.
    from runner.guard import kill_marked  # noqa: PLC0415 needed at the end alone
    from testkit.servers import clear  # noqa: PLC0415 needed at the end alone

    if path.exists():
        clear(path)
    kill_marked({os.environ[MARK]}, MARK)


if __name__ == "__main__":
    _guard(Path(sys.argv[1]))
