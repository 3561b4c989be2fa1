"""Command `drain`: take a runner out of service, watch it become idle, and let it take runs again."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testkit.cluster import Cluster
from testkit.waiting import eventually
from tests.support.coordination import Coordination

HELD = "import time; from pathlib import Path\nwhile not Path({path!r}).exists(): time.sleep(0.02)"


@pytest.fixture
def coordination(cluster: Cluster) -> Coordination:
    return Coordination(cluster, cluster.start_web().url)


def test_drain_waits_until_the_runner_has_no_run(coordination: Coordination, tmp_path: Path) -> None:
    """Show it in the list, in `top` and in `why`; the runner itself goes on, and takes the next run after the drain."""
    over = tmp_path / "over"
    coordination.start_python_runner(HELD.format(path=str(over)), "--name", "mine", "--concurrency", "2")
    run_id, _ = coordination.submit("x")
    coordination.until(run_id, "running")
    (runner,) = coordination.runners()
    name = runner["runner_id"]
    with ThreadPoolExecutor(1) as threads:
        drained = threads.submit(coordination.command, "drain", name, "--reason", "new kernel", "--wait")
        eventually(lambda: coordination.runners()[0]["draining_since"], what="a drain")
        waiting, _ = coordination.submit("y")
        assert "draining" in coordination.command("runners").stdout
        assert "0 online, 1 draining" in coordination.command("top", "--once").stdout
        why = coordination.command("why", waiting).stdout
        assert "1 matches and is draining since" in why
        assert "new kernel" in why
        assert "was drained by an administrator" in coordination.command("why", name).stdout
        assert not drained.done()
        over.touch()
        done = drained.result(60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{name}  draining for ")
    assert done.stderr.splitlines() == ["coordinator: 1 run in hand", "coordinator: no run in hand"]
    assert coordination.run(waiting)["status"] == "pending"
    again = json.loads(coordination.command("drain", name, "--reason", "other", "--json").stdout)
    assert again["drain_reason"] == "new kernel"
    undone = coordination.command("drain", name, "--undo")
    assert undone.stdout == f"{name}  takes runs\n"
    coordination.until(waiting, "completed")


def test_drain_that_is_undone_meanwhile_ends_the_wait(coordination: Coordination, tmp_path: Path) -> None:
    over = tmp_path / "over"
    coordination.start_python_runner(HELD.format(path=str(over)), "--name", "mine")
    coordination.until(coordination.submit("x")[0], "running")
    name = coordination.runners()[0]["runner_id"]
    with ThreadPoolExecutor(1) as threads:
        drained = threads.submit(coordination.command, "drain", name, "--wait")
        eventually(lambda: coordination.runners()[0]["draining_since"], what="a drain")
        assert coordination.command("drain", name, "--undo").returncode == 0
        done = drained.result(60)
    assert done.returncode == 1
    assert "the drain was undone" in done.stderr
    over.touch()


def test_faulty_drains_are_refused(coordination: Coordination) -> None:
    assert coordination.command("drain", "lnch_none").returncode == 1
    assert "Runner not found" in coordination.command("drain", "lnch_none", "--undo").stderr
    for options in (["--undo", "--wait"], ["--undo", "--reason", "x"]):
        assert coordination.command("drain", "lnch_none", *options).returncode == 2
    assert coordination.command("drain", "x", url="http://127.0.0.1:9").returncode == 3
    coordination.start_python_runner("pass", "--name", "mine")
    name = coordination.runners()[0]["runner_id"]
    long = coordination.command("drain", name, "--reason", "x" * 201)
    assert long.returncode == 1
    assert "200" in long.stderr
