"""Workers that are killed at a chosen statement or commit."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.settings import Settings

# For each number read, fork a worker, since imports take longer than all its steps. Kill it before the statement or
# commit of that number; print its exit code, and before that its number of steps if it came to the end.
KILLED = """
import importlib, os, signal, sys, traceback
from runtime.settings import Settings
from sqlalchemy import event
from workers.context import worker_context

act = getattr(importlib.import_module(sys.argv[3]), sys.argv[4])

def work(moment):
    seen = 0

    def count(_, *rest):
        nonlocal seen
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    with worker_context(Settings(database_url=sys.argv[1], redis_url=sys.argv[2]), threads=1) as context:
        event.listen(context.engine, "commit", count)
        event.listen(context.engine, "before_cursor_execute", count)
        act(context)
    print(seen, flush=True)

for line in sys.stdin:
    pid = os.fork()
    if not pid:
        try:
            work(int(line))
            os._exit(0)
        except Exception:
            traceback.print_exc()
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
ITS_OWN = "datname = current_database() AND application_name = 'coordinator worker'"
RunWorker = Callable[[int], int]


@contextmanager
def killed_workers(settings: Settings, module: str, function: str) -> Iterator[RunWorker]:
    """Yield a function that has a worker act and be killed at a step; it returns the exit code, for step 0 the steps."""
    command = [sys.executable, "-c", KILLED, settings.database_url, settings.redis_url, module, function]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[2], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        lines, answers = process.stdin, process.stdout

        def answered() -> int:
            """Pass over the lines of the worker's log."""
            line = answers.readline()
            while not re.fullmatch(r"-?\d+\n", line):
                assert line, "the workers have ended"
                line = answers.readline()
            return int(line)

        def run(moment: int) -> int:
            lines.write(f"{moment}\n")
            lines.flush()
            first = answered()
            if moment == 0:
                assert answered() == 0
            return first

        yield run
        lines.close()
