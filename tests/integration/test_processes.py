"""Pid files and locks: the process that they name, and when they stop naming it."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from runtime.processes import (
    Locked,
    end_processes,
    family,
    free_port,
    is_alive,
    locked,
    process_identity,
    read_pid_file,
    write_pid_file,
)
from testkit.waiting import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        yield process
        process.kill()


def test_pid_file_names_its_process_while_it_lives(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """Count a zombie as dead: it holds no port and no file."""
    path = tmp_path / "run" / "web-1.pid"
    write_pid_file(path, sleeper.pid)
    named = read_pid_file(path)
    assert named
    assert named.pid == sleeper.pid
    sleeper.kill()
    eventually(lambda: psutil.Process(sleeper.pid).status() == psutil.STATUS_ZOMBIE, what="the zombie")
    assert read_pid_file(path) is None


def test_reused_pid_is_not_taken_for_former_process(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """Compare process identities, so that no unrelated process is killed."""
    path = tmp_path / "web-1.pid"
    write_pid_file(path, sleeper.pid)
    _, mark = path.read_text().split()
    path.write_text(f"{psutil.Process().pid} {mark}\n")
    assert read_pid_file(path) is None
    assert process_identity(sleeper.pid) == mark


@pytest.mark.parametrize("text", ["", "nonsense", "12 ", "99999999 x:1"])
def test_broken_pid_file_names_no_process(tmp_path: Path, text: str) -> None:
    """Read a file cut short by a crash."""
    path = tmp_path / "web-1.pid"
    path.write_text(text)
    assert read_pid_file(path) is None


def test_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    """Let the kernel release it, however the holder ends."""
    path = tmp_path / "up.lock"
    script = (
        "import sys, pathlib\n"
        "from runtime.processes import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Locked) as refused, locked(path):
            pass
        assert refused.value.holder == holder.pid
        holder.kill()
        holder.wait()
        with locked(path):
            pass


def test_process_that_ignores_sigterm_is_killed_with_descendants() -> None:
    """Send SIGTERM first, then SIGKILL."""
    script = "trap '' TERM; sleep 60 & echo started; wait; wait"
    with subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout
        assert stubborn.stdout.readline() == b"started\n"
        members = family([psutil.Process(stubborn.pid)])
        assert len(members) == 2
        end_processes(members, within=0.2, by=signal.SIGTERM)
        assert not any(map(is_alive, members))


def test_ended_child_keeps_its_exit_code(sleeper: subprocess.Popen[bytes]) -> None:
    """Otherwise an initdb that is ended during `up`'s first start counts as finished."""
    end_processes([psutil.Process(sleeper.pid)], within=5)
    assert sleeper.wait() == -signal.SIGTERM


def test_free_port_is_below_ephemeral_range() -> None:
    """Keep outgoing connections from taking it between two starts."""
    assert all(20_000 <= free_port() < 32_768 for _ in range(20))


def test_connection_limit_leaves_descriptors_for_databases_and_process() -> None:
    """Take as many as configured if they fit into the open file limit; of a low limit take half."""
    calls = "allow(), allow(20), allow(1000), allow(besides=16), allow(besides=500)"
    script = f"from runtime.processes import allow_connections as allow; print({calls})"
    command = ["/bin/sh", "-c", 'ulimit -n 300; exec "$0" -c "$1"', sys.executable, script]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT).stdout
    assert re.findall(r"\d+", said) == ["172", "20", "172", "156", "150"]
