"""A runner whose machine cannot execute a run: it releases the run, pauses, and reports the reason."""

import resource
import sys
from pathlib import Path

import pytest

from testkit.cluster import Cluster
from testkit.waiting import eventually
from tests.support.command import coordinator
from tests.support.coordination import Coordination


@pytest.fixture
def coordination(cluster: Cluster) -> Coordination:
    return Coordination(cluster, cluster.start_web().url)


def kinds(coordination: Coordination, session_id: str) -> list[str]:
    return [event["event_type"] for event in coordination.events(session_id)]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("no-such-program", "no-such-program is not a program that can be started"),
        ("./missing", "./missing is not a program"),
        ("{here}/text", "{here}/text is not a program"),
    ],
)
def test_runner_without_its_program_does_not_start(tmp_path: Path, command: str, said: str) -> None:
    """Exit with 2 and one sentence before it registers."""
    (tmp_path / "text").touch(mode=0o644)
    ended = coordinator("runner", "--url", "http://127.0.0.1:9", "--", command.format(here=tmp_path))
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"coordinator: {said.format(here=tmp_path)}")
    assert ended.stderr.count("\n") == 1


def test_run_is_released_while_directory_is_away(coordination: Coordination, tmp_path: Path) -> None:
    """Count neither an attempt nor a failure; the runner takes runs again when it is back."""
    home = tmp_path / "home"
    home.mkdir()
    runner = coordination.start_python_runner("print('here')", "--project-dir", str(home))
    home.rmdir()
    run_id, session_id = coordination.submit("x")
    eventually(lambda: "run_released" in kinds(coordination, session_id))
    eventually(lambda: "paused" in runner.log())
    assert "not a directory" in runner.log()
    run = coordination.run(run_id)
    assert (run["status"], run["attempt"], run["error"]) == ("pending", 0, None)
    home.mkdir()
    run = coordination.until(run_id)
    assert (run["status"], run["attempt"]) == ("completed", 1)
    assert "resumed" in runner.log()


def test_run_is_released_while_file_table_is_full(coordination: Coordination) -> None:
    """Blame the runner, not the run, for too many open files."""
    runner = coordination.start_python_runner("print('here')")
    soft, hard = resource.prlimit(runner.pid, resource.RLIMIT_NOFILE)
    used = max(int(path.name) for path in Path(f"/proc/{runner.pid}/fd").iterdir())
    # Leave enough descriptors for its calls, but not for a process.
    resource.prlimit(runner.pid, resource.RLIMIT_NOFILE, (used + 6, hard))
    run_id, session_id = coordination.submit("x")
    eventually(lambda: "run_released" in kinds(coordination, session_id))
    assert "no more files" in runner.log()
    assert coordination.run(run_id)["attempt"] == 0
    resource.prlimit(runner.pid, resource.RLIMIT_NOFILE, (soft, hard))
    run = coordination.until(run_id)
    assert (run["status"], run["attempt"]) == ("completed", 1)


def test_run_whose_process_could_not_start_is_released_after_started(
    coordination: Coordination, tmp_path: Path
) -> None:
    """Withdraw the reported start: another runner or this one starts it anew."""
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF of no machine")
    program.chmod(0o755)
    runner = coordination.start_runner("--", str(program))
    run_id, session_id = coordination.submit("x")
    eventually(lambda: "run_released" in kinds(coordination, session_id))
    assert kinds(coordination, session_id)[:2] == ["run_start", "run_released"]
    assert "Cannot start" in runner.log()
    fixed = tmp_path / "fixed"
    fixed.write_text(f"#!{sys.executable}\nprint('here')\n")
    fixed.chmod(0o755)
    fixed.replace(program)
    run = coordination.until(run_id, within=60)
    assert (run["status"], run["attempt"]) == ("completed", 1)
