"""Double of the deployed runners; crashes/ and races/ test what they must survive."""

import json
from pathlib import Path

import pytest

from testkit.cluster import Cluster
from testkit.deployed_runner import DeployedRunner
from testkit.waiting import eventually
from tests.support.coordination import Coordination


@pytest.fixture
def coordination(cluster: Cluster) -> Coordination:
    return Coordination(cluster, cluster.start_web().url)


@pytest.fixture
def deployed(coordination: Coordination, tmp_path: Path) -> DeployedRunner:
    runner = DeployedRunner(tmp_path / "deployed", coordination.url)
    eventually(lambda: runner.runner_id, what="registered")
    return runner


def test_deployed_runner_executes_runs_without_token(coordination: Coordination, deployed: DeployedRunner) -> None:
    """Claim, start, bind and report each once, each accepted, while it goes on polling."""
    slow, _ = coordination.submit("sleep 1")
    quick, session_id = coordination.submit("now")
    failing, _ = coordination.submit("fail")
    assert coordination.until(quick)["status"] == "completed"
    assert coordination.until(failing)["error"] == "exit code 1"
    assert coordination.until(slow)["status"] == "completed"
    result = coordination.ask("GET", f"/sessions/{session_id}/result")
    assert result["result_text"] == f"done: {quick}"
    for run_id, ending in ((slow, "completed"), (quick, "completed"), (failing, "failed")):
        reports = eventually(
            lambda run_id=run_id: deployed.ledger("", run_id) if deployed.ledger("started", run_id) else []
        )
        codes = {entry["what"]: entry["code"] for entry in reports if "code" in entry}
        assert codes["started"] == 200
        assert codes[ending] == 200
    deployed.terminate()


def test_short_process_ends_before_its_start_is_reported(coordination: Coordination, deployed: DeployedRunner) -> None:
    """Send `completed` first; `started` after it changes nothing."""
    run_id, _ = coordination.submit("now")
    eventually(lambda: deployed.ledger("started", run_id))
    kinds = [entry["what"] for entry in deployed.ledger("", run_id)]
    assert kinds.index("completed") < kinds.index("started")
    run = coordination.run(run_id)
    assert (run["status"], run["attempt"]) == ("completed", 1)
    deployed.terminate()


def test_stop_ends_deployed_runners_process(coordination: Coordination, deployed: DeployedRunner) -> None:
    """Tell it by the next poll; it reports stopped."""
    run_id, session_id = coordination.submit("sleep 60")
    coordination.until(run_id, "running")
    coordination.ask("POST", f"/sessions/{session_id}/stop")
    assert coordination.until(run_id)["status"] == "stopped"
    (stopped,) = eventually(lambda: deployed.ledger("stopped", run_id))
    assert stopped["code"] == 200
    deployed.terminate()


def test_deployed_runner_gives_up_after_three_failed_polls(coordination: Coordination, tmp_path: Path) -> None:
    """Kill its work with it, which makes an outage expensive."""
    deployed = DeployedRunner(tmp_path / "deployed", coordination.url)
    eventually(lambda: deployed.runner_id)
    run_id, _ = coordination.submit("sleep 60")
    coordination.until(run_id, "running")
    coordination.cluster.processes[0].kill()
    assert deployed.process.wait(30) == 1
    assert len(deployed.ledger("poll_failed")) == 3
    assert [entry["run_id"] for entry in deployed.ledger("killed")] == [run_id]


def test_same_identity_is_refused_while_former_one_is_online(
    coordination: Coordination, deployed: DeployedRunner, tmp_path: Path
) -> None:
    """Retry until accepted: at once when the former one has left."""
    second = DeployedRunner(tmp_path / "second", coordination.url)
    refused = eventually(lambda: [entry for entry in second.ledger("register") if entry["code"] == 409])
    detail = json.loads(refused[0]["body"])["detail"]
    assert (detail["error"], detail["runner_id"]) == ("duplicate_runner", deployed.runner_id)
    assert deployed.terminate() == 0
    eventually(lambda: second.runner_id == deployed.runner_id)
    second.terminate()
