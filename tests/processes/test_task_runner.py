"""Functions of a program as a runner, against real processes of the coordinator."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator_client.messages import lines_of
from coordinator_client.outcomes import RunFailed, RunStopped
from coordinator_client.requests import RunRequest
from coordinator_client.sync_client import SyncCoordinatorClient
from coordinator_client.tasks import task_request
from testkit.cluster import Cluster, Process
from testkit.waiting import eventually
from tests.support.coordination import is_alive
from tests.support.task_runners import start_task_runner

QUICK: dict[str, Any] = {
    "told_heartbeat_instance_seconds": 1,
    "stale_after_seconds": 3,
    "lost_after_seconds": 5,
}
MOST_SECONDS = 60


@pytest.fixture
def times() -> dict[str, Any]:
    """Return settings of the coordinator: none, since a busy machine delays heartbeats by seconds."""
    return {}


@pytest.fixture
def web(cluster: Cluster, times: dict[str, Any]) -> Process:
    web = cluster.start_web(**times)
    cluster.start_worker(**times)
    return web


@pytest.fixture
def coordinator(web: Process) -> Iterator[SyncCoordinatorClient]:
    with SyncCoordinatorClient(web.url) as coordinator:
        yield coordinator


def submitted(coordinator: SyncCoordinatorClient, task: str, **parameters: Any) -> str:
    return coordinator.submit(task_request(task, parameters))["run_id"]


def lines(coordinator: SyncCoordinatorClient, run_id: str) -> list[tuple[str, str]]:
    session = coordinator.run(run_id)["session_id"]
    return list(lines_of(coordinator.session_events(session, run_id=run_id)))


def pid(coordinator: SyncCoordinatorClient, run_id: str, *, other_than: int = 0) -> int:
    """Return the process in which the function of the run works, once it has told that."""

    def told() -> int:
        found = [int(text.split()[1]) for _, text in lines(coordinator, run_id) if text.startswith("pid ")]
        return next((pid for pid in found if pid != other_than), 0)

    return eventually(told, what=f"the process of {run_id}")


@pytest.mark.parametrize("times", [QUICK], ids=["soon lost"])
def test_functions_complete_and_fail_runs(
    cluster: Cluster, web: Process, coordinator: SyncCoordinatorClient, tmp_path: Path
) -> None:
    """Take runs of own tasks only, and give values, logs, progress and errors to the coordinator."""
    runner = start_task_runner(cluster, web.url, notes=tmp_path / "notes")
    foreign = coordinator.submit(
        RunRequest(parameters={"prompt": "x"}, additional_demands={"tags": ["gpu"]}, no_match_timeout_seconds=600)
    )["run_id"]
    unnamed = coordinator.submit(
        RunRequest(parameters={"prompt": "x"}, additional_demands={"tags": ["task-runner:gpu"]})
    )["run_id"]
    run_id = coordinator.submit(task_request("resize", {"width": 3}, tags=("gpu",)))["run_id"]
    done = coordinator.wait(run_id, seconds=MOST_SECONDS)
    assert (done.data, done.text, done.run["agent_name"]) == ({"width": 6}, None, "task:resize")
    assert lines(coordinator, run_id) == [("assistant", "reading"), ("system", "writing")]
    progress = [event for event in coordinator.follow(run_id) if event["event_type"] == "progress"]
    assert [event["content"] for event in progress] == [[{"type": "text", "text": "50% half", "progress": 0.5}]]

    failing = submitted(coordinator, "fail")
    with pytest.raises(RunFailed, match="failed: ValueError: too wide"):
        coordinator.wait(failing, seconds=MOST_SECONDS)
    ((role, text),) = lines(coordinator, failing)
    assert role == "system"
    assert 'raise ValueError("too wide")' in text
    with pytest.raises(RunFailed, match="demands no task"):
        coordinator.wait(unnamed, seconds=MOST_SECONDS)

    child, parent = coordinator.wait(submitted(coordinator, "computed"), seconds=MOST_SECONDS).data
    assert (parent, child == parent) == (runner.pid, False)
    # Longer than a runner without heartbeats is kept.
    assert coordinator.wait(submitted(coordinator, "blocking", seconds=7), seconds=MOST_SECONDS).text == "survived"
    assert coordinator.run(foreign)["status"] == "pending"


def test_stop_reaches_functions(
    cluster: Cluster, web: Process, coordinator: SyncCoordinatorClient, tmp_path: Path
) -> None:
    """Tell functions in threads, on the loop and in processes; kill a process that does not listen after the grace."""
    start_task_runner(cluster, web.url, notes=tmp_path / "notes")
    runs = {task: submitted(coordinator, task) for task in ("thread", "loop", "process", "deaf")}
    pids = {task: pid(coordinator, run_id) for task, run_id in runs.items()}
    for run_id in runs.values():
        coordinator.stop_run(run_id)
    for task, run_id in runs.items():
        with pytest.raises(RunStopped):
            coordinator.wait(run_id, seconds=MOST_SECONDS)
        assert lines(coordinator, run_id)[1:] == ([] if task == "deaf" else [("assistant", "cancelled")]), task
    eventually(lambda: not is_alive(pids["process"]) and not is_alive(pids["deaf"]), what="the end of the processes")

    killed = submitted(coordinator, "deaf")
    os.kill(pid(coordinator, killed), signal.SIGKILL)
    with pytest.raises(RunFailed, match="ended by SIGKILL"):
        coordinator.wait(killed, seconds=MOST_SECONDS)


@pytest.mark.parametrize("times", [QUICK], ids=["soon lost"])
def test_lost_claim_ends_the_function_and_reports_nothing(
    cluster: Cluster, web: Process, coordinator: SyncCoordinatorClient, tmp_path: Path
) -> None:
    """Freeze a runner until its run is given to another; the first one's processes and threads end when it wakes."""
    frozen = start_task_runner(cluster, web.url, notes=tmp_path / "notes")
    runs = [coordinator.submit(task_request(task, max_attempts=2))["run_id"] for task in ("deaf", "thread")]
    first = [pid(coordinator, run_id) for run_id in runs]
    frozen.freeze()
    start_task_runner(cluster, web.url, notes=tmp_path / "notes")
    second = [pid(coordinator, run_id, other_than=old) for run_id, old in zip(runs, first, strict=True)]
    assert is_alive(first[0])
    frozen.thaw()
    eventually(lambda: not is_alive(first[0]), what="the end of the first process")
    eventually(lambda: frozen.log().count("execution_ended") == 2, what="the end of both first executions")
    found = [coordinator.run(run_id) for run_id in runs]
    assert [(run["status"], run["attempt"]) for run in found] == [("running", 2)] * 2
    assert is_alive(second[0])
    for run_id in runs:
        assert ("assistant", "cancelled") not in lines(coordinator, run_id)


def test_runner_that_is_killed_leaves_no_process(
    cluster: Cluster, web: Process, coordinator: SyncCoordinatorClient, tmp_path: Path
) -> None:
    runner = start_task_runner(cluster, web.url, notes=tmp_path / "notes")
    process = pid(coordinator, submitted(coordinator, "deaf"))
    runner.kill()
    eventually(lambda: not is_alive(process), what="the end of the function's process")


def test_sigterm_finishes_runs_in_hand(
    cluster: Cluster, web: Process, coordinator: SyncCoordinatorClient, tmp_path: Path
) -> None:
    """Take no more, and leave with exit code 0."""
    runner = start_task_runner(cluster, web.url, notes=tmp_path / "notes")
    file = tmp_path / "may end"
    held = submitted(coordinator, "alone", file=str(file))
    pid(coordinator, held)
    # The task has one slot of its own; the others are free.
    waiting = submitted(coordinator, "alone", file=str(file))
    assert coordinator.wait(submitted(coordinator, "resize", width=1), seconds=MOST_SECONDS).data == {"width": 2}
    runner.terminate()
    eventually(lambda: runner.log().count("draining") == 2, what="the drain")
    late = submitted(coordinator, "resize", width=1)
    assert [coordinator.run(run_id)["status"] for run_id in (held, waiting, late)] == ["running", "pending", "pending"]
    file.touch()
    assert coordinator.wait(held, seconds=MOST_SECONDS).result is None
    assert runner.wait() == 0
    assert [coordinator.run(run_id)["status"] for run_id in (waiting, late)] == ["pending", "pending"]


def test_second_signal_gives_runs_back(
    cluster: Cluster, web: Process, coordinator: SyncCoordinatorClient, tmp_path: Path
) -> None:
    """End functions that have not ended; the run goes on elsewhere."""
    runner = start_task_runner(cluster, web.url, notes=tmp_path / "notes")
    run_id = coordinator.submit(task_request("process", max_attempts=2))["run_id"]
    process = pid(coordinator, run_id)
    runner.terminate()
    eventually(lambda: "draining" in runner.log(), what="the drain")
    runner.terminate()
    assert runner.wait() == 0
    assert not is_alive(process)
    eventually(lambda: coordinator.run(run_id)["status"] == "pending", what="the run's return")


def test_later_signal_ends_a_program_that_waits_for_its_threads(
    cluster: Cluster, web: Process, coordinator: SyncCoordinatorClient, tmp_path: Path
) -> None:
    """Leave with a coroutine's thread at work, for which Python waits at the end of a loop."""
    runner = start_task_runner(cluster, web.url, notes=tmp_path / "notes")
    run_id = coordinator.submit(task_request("threaded", max_attempts=2))["run_id"]
    pid(coordinator, run_id)
    runner.terminate()
    eventually(lambda: "draining" in runner.log(), what="the drain")
    runner.terminate()
    eventually(lambda: coordinator.run(run_id)["status"] == "pending", what="the run's return")

    def has_ended() -> bool:
        runner.terminate()
        return not runner.alive

    eventually(has_ended, what="the end of the program")
    assert runner.exit_code == -signal.SIGTERM


def test_runners_execute_each_run_once(
    cluster: Cluster, web: Process, coordinator: SyncCoordinatorClient, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    for _ in range(2):
        start_task_runner(cluster, web.url, notes=notes)
    batch = coordinator.submit_batch([task_request("once", {"number": number}) for number in range(100)])
    runs = [item["run_id"] for item in batch]
    assert [coordinator.wait(run_id, seconds=MOST_SECONDS).data for run_id in runs] == list(range(100))
    assert sorted(notes.read_text().split()) == sorted(runs)
