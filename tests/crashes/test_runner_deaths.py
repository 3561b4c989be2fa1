"""Check runners that die or lose their terminal, jobs that leave their process group, and orphans: nothing is left."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from runner import guard
from testkit.cluster import Cluster, Process
from testkit.waiting import eventually
from tests.support.coordination import Coordination, is_alive
from tests.support.jobs import daemon, in_group, in_session, pid_in, script_of, until_dead

FOR_EVER = "time.sleep(600)"
# Take the path of the job's script from the prompt.
READS_SCRIPT = "import json, sys; exec(open(json.load(sys.stdin)['parameters']['prompt']).read())"


@pytest.fixture
def coordination(cluster: Cluster) -> Coordination:
    return Coordination(cluster, cluster.start_web().url)


def guard_of(runner: Process) -> int:
    """Return the process that watches over a runner's jobs."""

    def found() -> int | None:
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in guard.children_of(runner.pid)}
        return next((pid for pid, command in commands.items() if guard.__file__.encode() in command), None)

    return eventually(found, what="the guard") or 0


@pytest.mark.parametrize("guard_dies", [False, True], ids=["kill -9", "its guard killed before"])
def test_killed_runner_leaves_no_process_of_its_job(
    coordination: Coordination, tmp_path: Path, *, guard_dies: bool
) -> None:
    """End leader, group, separate sessions and daemons at once, without a next runner."""
    commands: list[Callable[[Path], list[str]]] = [in_group, in_session, daemon]
    paths = [tmp_path / command.__name__ for command in commands]
    job = script_of([command(path) for command, path in zip(commands, paths, strict=True)], FOR_EVER)
    (tmp_path / "job.py").write_text(f"import os; print('pid', os.getpid())\n{job}")
    runner = coordination.start_python_runner(READS_SCRIPT, "--concurrency", "2")
    _, session_id = coordination.submit(str(tmp_path / "job.py"))
    pids = [pid_in(path) for path in paths]
    said = eventually(lambda: [line for line in coordination.lines(session_id) if line.startswith("pid")])
    pids.append(int(said[0].split()[1]))
    if guard_dies:
        former = guard_of(runner)
        os.kill(former, signal.SIGKILL)
        until_dead([former])
        # The next job finds it gone.
        (tmp_path / "next.py").write_text("import time; time.sleep(600)")
        again, _ = coordination.submit(str(tmp_path / "next.py"))
        coordination.until(again, "running")
        eventually(lambda: guard_of(runner) != former)
    assert all(map(is_alive, pids))
    watching = guard_of(runner)
    runner.kill()
    until_dead([*pids, watching])


def test_processes_that_left_the_group_end_with_their_job(coordination: Coordination, tmp_path: Path) -> None:
    """Cover separate sessions, daemons, and daemons without the environment; leave another job's processes alone."""
    other = tmp_path / "other"
    coordination.start_python_runner(READS_SCRIPT, "--concurrency", "2")
    (tmp_path / "other.py").write_text(script_of([in_session(other)], FOR_EVER))
    kept_run, _ = coordination.submit(str(tmp_path / "other.py"))
    kept = pid_in(other)
    left = [tmp_path / name for name in ("session", "daemon", "bare")]
    commands = [in_session(left[0]), daemon(left[1])]
    waits = f"while not all(map(os.path.exists, {[str(path) for path in left[:2]]!r})): time.sleep(0.01)"
    (tmp_path / "job.py").write_text(script_of(commands, waits))
    run_id, _ = coordination.submit(str(tmp_path / "job.py"))
    pids = [pid_in(path) for path in left[:2]]
    assert coordination.until(run_id)["status"] == "completed"
    until_dead(pids)
    assert is_alive(kept)
    coordination.ask("POST", f"/runs/{kept_run}/stop")
    assert coordination.until(kept_run)["status"] == "stopped"
    until_dead([kept])
    (tmp_path / "bare.py").write_text(
        script_of(
            [daemon(left[2], environment="{'PATH': '/usr/bin:/bin'}")],
            f"while not os.path.exists({str(left[2])!r}): time.sleep(0.01)",
        )
    )
    bare_run, _ = coordination.submit(str(tmp_path / "bare.py"))
    bare = pid_in(left[2])
    assert coordination.until(bare_run)["status"] == "completed"
    until_dead([bare])


def test_runner_reaps_orphans_of_its_jobs(coordination: Coordination) -> None:
    """Reap background children of a shell that outlive it while the job continues."""
    script = (
        "import subprocess, time\n"
        "for _ in range(20): subprocess.run(['sh', '-c', '(sleep 0.2 &) ; exit 0'], check=True)\n"
        "print('left', flush=True)\ntime.sleep(600)"
    )
    runner = coordination.start_python_runner(script)
    run_id, session_id = coordination.submit("x")
    eventually(lambda: "left" in coordination.lines(session_id))

    def children() -> list[str | None]:
        return [guard.status_of(pid) for pid in guard.children_of(runner.pid)]

    eventually(lambda: len(children()) == 2 and "Z" not in children(), what="the job and the guard alone")
    coordination.ask("POST", f"/runs/{run_id}/stop")
    assert coordination.until(run_id)["status"] == "stopped"


def test_sighup_drains_the_runner(coordination: Coordination, tmp_path: Path) -> None:
    """Treat a closed terminal like SIGTERM: finish and report running work, and leave nothing running."""
    go = tmp_path / "go"
    job = f"import os, time\nprint('pid', os.getpid())\nwhile not os.path.exists({str(go)!r}): time.sleep(0.02)"
    runner = coordination.start_python_runner(job)
    run_id, session_id = coordination.submit("x")
    eventually(lambda: coordination.lines(session_id))
    runner.signal(signal.SIGHUP)
    eventually(lambda: "draining" in runner.log())
    go.touch()
    assert coordination.until(run_id)["status"] == "completed"
    assert runner.wait(30) == 0


def test_ignored_sighup_stays_ignored(coordination: Coordination) -> None:
    """`nohup coordinator runner …` continues when its terminal is closed."""
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        runner = coordination.start_python_runner("pass")
    finally:
        signal.signal(signal.SIGHUP, former)
    runner.signal(signal.SIGHUP)
    run_id, _ = coordination.submit("x")
    assert coordination.until(run_id)["status"] == "completed"
    assert "draining" not in runner.log()
