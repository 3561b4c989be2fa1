"""What a killed runner leaves behind, and who ends it."""

import subprocess
import sys
from pathlib import Path

from runner.orphans import OrphanNotes
from tests.support.coordination import is_alive
from tests.support.waiting import eventually

# A runner's part: starts a group of two, notes it, says which it is, and waits to be killed.
RUNNER = (
    "import subprocess, sys, time; from pathlib import Path; from runner.orphans import OrphanNotes\n"
    "process = subprocess.Popen(['sh', '-c', 'sleep 300 & echo $!; wait'], start_new_session=True)\n"
    "OrphanNotes(Path(sys.argv[1])).note(process.pid); print(process.pid, flush=True); time.sleep(300)"
)


def test_the_next_runner_ends_what_a_killed_one_has_left(tmp_path: Path) -> None:
    """The whole group, and not before its runner is gone."""
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


def test_a_number_that_belongs_to_another_process_by_now_is_left_alone(tmp_path: Path) -> None:
    """A note outlives its process, the number is given again."""
    with subprocess.Popen(["/bin/sleep", "300"], start_new_session=True) as stranger:
        note = '{"started": 1.0, "runner": 999999999, "runner_started": 1.0}'
        (tmp_path / str(stranger.pid)).write_text(note)
        (tmp_path / "half-written").write_text("{")
        assert OrphanNotes(tmp_path).end() == []
        assert is_alive(stranger.pid)
        stranger.kill()
    assert [path.name for path in tmp_path.iterdir()] == ["half-written"]
