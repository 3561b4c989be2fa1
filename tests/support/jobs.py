"""Jobs whose processes leave the process group, each in its own way, and report their pids."""

import sys
from collections.abc import Sequence
from pathlib import Path

from testkit.waiting import eventually
from tests.support.coordination import is_alive

# Write its process id to the file given and sleep; `sh -c` avoids Python's start-up.
SLEEP = "echo $$ > {0}.new && mv {0}.new {0} && exec sleep 600"
# Start a grandchild in a session of its own whose parent has ended, as daemons are.
DAEMON = (
    "import os, sys\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0: os.execve('/bin/sh', ['sh', '-c', sys.argv[1]], eval(sys.argv[2]))\n"
    "    os._exit(0)\n"
    "os.wait()\n"
)


def sleeping(path: Path) -> str:
    """Return a shell command that writes its process id to this file and sleeps."""
    return SLEEP.format(path)


def in_group(path: Path) -> list[str]:
    """Return a child of the leader."""
    return ["sh", "-c", sleeping(path)]


def in_session(path: Path) -> list[str]:
    """Return a child in a session of its own."""
    return ["setsid", "sh", "-c", sleeping(path)]


def daemon(path: Path, *, environment: str = "dict(os.environ)") -> list[str]:
    """Return a process without a parent in the job, in a session of its own."""
    return [sys.executable, "-c", DAEMON, sleeping(path), environment]


def script_of(commands: Sequence[Sequence[str]], then: str) -> str:
    """Return a job's script in Python: it starts these side by side, waits for their process ids, then continues."""
    return (
        f"import os, subprocess, sys, time\nfor command in {[list(one) for one in commands]!r}: subprocess.Popen(command)\n"
        f"{then}"
    )


def pid_in(path: Path) -> int:
    """Wait for the process id in the file and return it."""
    eventually(path.exists, what=path.name)
    return int(path.read_text())


def until_dead(pids: Sequence[int], within: float = 30) -> None:
    """Wait until none of these lives."""
    eventually(lambda: not any(map(is_alive, pids)), within, what="the end of the processes")
