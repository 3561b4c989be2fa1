"""Processes that a killed runner leaves behind, and their end."""

import subprocess
import sys
from pathlib import Path

from runner.orphans import OrphanNotes
from testkit.waiting import eventually
from tests.support.coordination import is_alive

# Part of a runner: starts and records a group of two processes, prints their ids, and waits to be killed.
RUNNER = (
    "import subprocess, sys, time; from pathlib import Path; from runner.orphans import OrphanNotes\n"
    "process = subprocess.Popen(['sh', '-c', 'sleep 300 & echo $!; wait'], start_new_session=True)\n"
    "OrphanNotes(Path(sys.argv[1])).note(process.pid); print(f'{process.pid}\\n', end='', flush=True)\n"
    "time.sleep(300)"
)


def test_next_runner_ends_processes_of_killed_one(tmp_path: Path) -> None:
    """End the whole group, and not before its runner is gone."""
    with subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path)], stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        pids = sorted(int(runner.stdout.readline()) for _ in range(2))
        assert OrphanNotes(tmp_path).end() == []
        runner.kill()
        runner.wait()
    assert all(map(is_alive, pids))
    (ended,) = OrphanNotes(tmp_path).end()
    assert ended in pids
    eventually(lambda: not any(map(is_alive, pids)))
    assert list(tmp_path.iterdir()) == []


def test_reused_pid_in_record_is_left_alone(tmp_path: Path) -> None:
    """Keep a record beyond its process, whose number belongs to another one."""
    with subprocess.Popen(["/bin/sleep", "300"], start_new_session=True) as unrelated:
        note = '{"started": 1.0, "runner": 999999999, "runner_started": 1.0}'
        (tmp_path / str(unrelated.pid)).write_text(note)
        (tmp_path / "half-written").write_text("{")
        assert OrphanNotes(tmp_path).end() == []
        assert is_alive(unrelated.pid)
        unrelated.kill()
    assert [path.name for path in tmp_path.iterdir()] == ["half-written"]
