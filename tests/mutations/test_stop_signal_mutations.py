"""Break the way in which a stop signal reaches the thread that waits for it: its scenario must notice."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devserver.supervisor import ROOT
from testkit.waiting import eventually

# Block the signal in the main thread: the system gives it to the other one.
WORKER = """
import signal, sys, threading
from workers.main import _stop_signals
with _stop_signals() as wait_for_signal:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    print("waits", flush=True)
    print(wait_for_signal(None), flush=True)
"""
# Let a handler in Python write into the pipe.
IN_PYTHON = """
import os, signal
set_handler, pipes = signal.signal, []
signal.set_wakeup_fd = lambda fd, **_: pipes.append(fd) or -1
def set_writing_handler(number, handler):
    writes = lambda number, _: os.write(pipes[0], bytes([number]))
    return set_handler(number, writes if callable(handler) else handler)
signal.signal = set_writing_handler
"""


def main_thread_sleeps(pid: int) -> bool:
    state = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "S"


@contextmanager
def waiting(script: str) -> "Iterator[subprocess.Popen[str]]":
    """Run the script until it waits; end it with the block."""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "waits\n"
            # Before it sleeps, a handler in Python would still run in the main thread.
            eventually(lambda: main_thread_sleeps(process.pid))
            yield process
        finally:
            process.kill()


def worker_ends_at_signal_of_another_thread(before: str, within: float) -> None:
    with waiting(before + WORKER) as process:
        process.send_signal(signal.SIGTERM)
        try:
            said, _ = process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            raise AssertionError("the signal was not noticed") from None
        assert said == f"{int(signal.SIGTERM)}\n"


def test_worker_notices_signal_that_another_thread_gets() -> None:
    worker_ends_at_signal_of_another_thread("", 30)


def test_handler_that_waits_for_the_main_thread_is_noticed() -> None:
    """Handlers in Python run in the main thread only, when it has returned from its wait."""
    with pytest.raises(AssertionError, match="was not noticed"):
        worker_ends_at_signal_of_another_thread(IN_PYTHON, 3)
