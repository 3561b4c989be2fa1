"""The runner as a real process with a real coordinator: its runs, its own end, and the processes that it started."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from testkit.cluster import Cluster
from testkit.waiting import eventually
from tests.support.coordination import Coordination, is_alive

# Prints its process id, then obeys the prompt: sleeps that long, and exits on SIGTERM.
SLEEPER = (
    "import json, os, sys, time; print('pid', os.getpid());"
    "time.sleep(float(json.load(sys.stdin)['parameters']['prompt']))"
)


@pytest.fixture
def coordination(cluster: Cluster) -> Coordination:
    return Coordination(cluster, cluster.start_web().url)


def pid_of(coordination: Coordination, session_id: str) -> int:
    """Return the process id that a SLEEPER of this session printed last."""

    def said() -> list[str]:
        return [line for line in coordination.lines(session_id) if line.startswith("pid ")]

    return int(eventually(said, what="the process says its id")[-1].split()[1])


def test_run_is_executed_and_reported_from_start_to_result(coordination: Coordination) -> None:
    """Run the demo command: started, its lines in order, the result, completed; the session shows its affinity."""
    coordination.start_runner("--name", "demo", "--tags", "tour,demo", "--", sys.executable, "-m", "runner.demo")
    run_id, session_id = coordination.submit("hello there", additional_demands={"tags": ["tour"]})
    run = coordination.until(run_id)
    assert (run["status"], run["attempt"], run["error"]) == ("completed", 1, None)
    kinds = [event["event_type"] for event in coordination.events(session_id)]
    assert kinds == ["run_start", *["message"] * 4, "result", "run_completed"]
    result = coordination.ask("GET", f"/sessions/{session_id}/result")
    assert result["result_text"] == "You said: hello there"
    assert result["result_data"]["words"] == 2
    affinity = coordination.ask("GET", f"/sessions/{session_id}/affinity")["affinity"]
    assert affinity["executor_profile"] == "demo"
    assert affinity["executor_session_id"]
    (runner,) = coordination.runners()
    assert (runner["executor"]["type"], sorted(runner["tags"]), runner["capacity"]) == (
        "autonomous",
        ["demo", "tour"],
        1,
    )
    assert runner["runner_id"] == run["runner_id"]


def test_failed_command_fails_its_run_with_end_of_stderr(coordination: Coordination) -> None:
    """Give the exit code and the last lines."""
    coordination.start_python_runner("import sys; print('why', file=sys.stderr); sys.exit(7)")
    run_id, session_id = coordination.submit("x")
    assert coordination.until(run_id)["error"] == "exit code 7\nwhy"
    assert coordination.ask("GET", f"/sessions/{session_id}/status") == {"status": "failed"}


def test_stop_ends_process_and_run(coordination: Coordination) -> None:
    """Stop while the runner is full, too: it polls for stops."""
    coordination.start_python_runner(SLEEPER)
    run_id, session_id = coordination.submit("60")
    pid = pid_of(coordination, session_id)
    coordination.ask("POST", f"/runs/{run_id}/stop")
    assert coordination.until(run_id)["status"] == "stopped"
    eventually(lambda: not is_alive(pid))
    next_run, _ = coordination.submit("0")
    assert coordination.until(next_run)["status"] == "completed"


def test_runner_executes_as_many_runs_as_it_has_slots(coordination: Coordination) -> None:
    """Run two at a time, and the third when one has ended, without waiting for a poll's end."""
    coordination.start_python_runner(SLEEPER, "--concurrency", "2")
    first, first_session = coordination.submit("60")
    second, _ = coordination.submit("60")
    third, _ = coordination.submit("0")
    coordination.until(first, "running")
    coordination.until(second, "running")
    assert coordination.run(third)["status"] == "pending"
    assert coordination.runners()[0]["runs_in_hand"] == 2
    coordination.ask("POST", f"/sessions/{first_session}/stop")
    assert coordination.until(third)["status"] == "completed"


def test_sigterm_finishes_runs_takes_no_more_and_leaves(coordination: Coordination, tmp_path: Path) -> None:
    waits = "import sys, os, time\nprint('pid', os.getpid())\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.02)"
    runner = coordination.start_runner("--", sys.executable, "-uc", waits, str(tmp_path / "go"))
    run_id, session_id = coordination.submit("x")
    pid_of(coordination, session_id)
    runner.terminate()
    eventually(lambda: "draining" in runner.log())
    other, _ = coordination.submit("x")
    (tmp_path / "go").touch()
    assert coordination.until(run_id)["status"] == "completed"
    assert runner.wait(30) == 0
    assert coordination.run(other)["status"] == "pending"
    assert coordination.runners() == []


def test_draining_runner_still_obeys_stops(coordination: Coordination) -> None:
    runner = coordination.start_python_runner(SLEEPER)
    run_id, session_id = coordination.submit("60")
    pid_of(coordination, session_id)
    runner.terminate()
    eventually(lambda: "draining" in runner.log())
    coordination.ask("POST", f"/runs/{run_id}/stop")
    assert coordination.until(run_id)["status"] == "stopped"
    assert runner.wait(30) == 0


@pytest.mark.parametrize("how", ["a second SIGTERM", "--grace"])
def test_drain_ends_runs_after_grace_or_second_sigterm(coordination: Coordination, how: str) -> None:
    """Requeue runs with attempts left at once; the next runner takes them."""
    grace = ["--grace", "0.2"] if how == "--grace" else []
    runner = coordination.start_python_runner(SLEEPER, *grace)
    run_id, session_id = coordination.submit("60", max_attempts=2)
    pid = pid_of(coordination, session_id)
    runner.terminate()
    if not grace:
        eventually(lambda: "draining" in runner.log())
        runner.terminate()
    assert runner.wait(30) == 0
    assert not is_alive(pid)
    assert coordination.run(run_id)["status"] == "pending"
    coordination.start_python_runner("pass")
    assert coordination.until(run_id)["attempt"] == 2


def test_resume_goes_to_bound_runner(coordination: Coordination) -> None:
    """Keep another one free."""
    runners = [
        coordination.start_python_runner("pass", "--name", name, "--concurrency", "4") for name in ("one", "two")
    ]
    run_id, session_id = coordination.submit("x", additional_demands={"executor_profile": "two"})
    home = coordination.until(run_id)["runner_id"]
    for _ in range(3):
        again, _ = coordination.submit("y", resume=True, session_id=session_id)
        assert coordination.until(again)["runner_id"] == home
    assert all(runner.alive for runner in runners)


def test_two_runners_of_one_command_coexist(coordination: Coordination) -> None:
    """Give each a profile of its own by default."""
    first = coordination.start_python_runner("pass")
    second = coordination.start_python_runner("pass")
    assert first.alive
    assert second.alive
    assert len({runner["executor_profile"] for runner in coordination.runners()}) == 2


def test_runner_goes_to_next_address_when_one_dies(cluster: Cluster) -> None:
    """Let its run go on; its reports and its next poll arrive at the other replica."""
    first_web, second_web = cluster.start_web(), cluster.start_web()
    coordination = Coordination(cluster, second_web.url)
    runner = coordination.start_python_runner(SLEEPER, urls=(first_web.url, second_web.url))
    run_id, session_id = coordination.submit("1")
    pid_of(coordination, session_id)
    first_web.kill()
    assert coordination.until(run_id)["status"] == "completed"
    again, _ = coordination.submit("0")
    assert coordination.until(again)["status"] == "completed"
    assert runner.alive


def test_runner_waits_for_absent_coordinator(cluster: Cluster) -> None:
    """Start before it, and outlive a pause."""
    web = cluster.start_web()
    port = web.url.rpartition(":")[2]
    web.kill()
    coordination = Coordination(cluster, web.url)
    runner = coordination.start_python_runner(SLEEPER, wait=False)
    eventually(lambda: "registration_failed" in runner.log())
    cluster.start("web", ["web", "--host", "127.0.0.1", "--port", port], url=web.url)
    eventually(lambda: "registered" in runner.log().replace("registration", ""))
    run_id, _ = coordination.submit("0")
    assert coordination.until(run_id)["status"] == "completed"


def test_reports_and_events_wait_for_absent_coordinator(cluster: Cluster) -> None:
    """Deliver output and end when it is back, nothing twice."""
    web = cluster.start_web()
    port = web.url.rpartition(":")[2]
    coordination = Coordination(cluster, web.url)
    script = "import time\nfor n in range(20): print('line', n); time.sleep(0.1)\nprint('{\"done\": true}')"
    coordination.start_python_runner(script)
    run_id, session_id = coordination.submit("x")
    eventually(lambda: "line 3" in coordination.lines(session_id))
    web.kill()
    cluster.start("web", ["web", "--host", "127.0.0.1", "--port", port], url=web.url)
    eventually(lambda: _answers(coordination))
    assert coordination.until(run_id)["status"] == "completed"
    assert coordination.lines(session_id) == [f"line {n}" for n in range(20)]
    assert coordination.ask("GET", f"/sessions/{session_id}/result")["result_data"] == {"done": True}


def test_forgotten_runner_registers_again(coordination: Coordination) -> None:
    """Answer 401 to its poll or heartbeat: it returns as the same runner, and takes runs."""
    coordination.start_python_runner(SLEEPER)
    (runner,) = coordination.runners()
    coordination.ask("DELETE", f"/runners/{runner['runner_id']}?self=true")
    again = eventually(coordination.runners)
    assert again[0]["runner_id"] == runner["runner_id"]
    run_id, _ = coordination.submit("0")
    assert coordination.until(run_id)["status"] == "completed"


def test_deregistered_runner_ends(coordination: Coordination) -> None:
    """Finish its runs unless that takes too long, and do not return."""
    runner = coordination.start_python_runner(SLEEPER)
    run_id, session_id = coordination.submit("1.5")
    pid_of(coordination, session_id)
    coordination.ask("DELETE", f"/runners/{coordination.runners()[0]['runner_id']}")
    assert runner.wait(30) == 0
    assert coordination.run(run_id)["status"] == "completed"


def test_runner_that_lost_its_run_kills_the_process(cluster: Cluster) -> None:
    """Freeze it until its run is given up: silent work ends as soon as the runner is awake."""
    quick: dict[str, Any] = {
        "told_heartbeat_instance_seconds": 0.3,
        "stale_after_seconds": 0.6,
        "lost_after_seconds": 1.5,
    }
    coordination = Coordination(cluster, cluster.start_web(**quick).url)
    cluster.start_worker(**quick)
    runner = coordination.start_python_runner(SLEEPER)
    run_id, session_id = coordination.submit("300")
    pid = pid_of(coordination, session_id)
    runner.freeze()
    run = coordination.until(run_id, within=30)
    assert run["status"] == "failed"
    assert "Runner lost" in run["error"]
    runner.thaw()
    eventually(lambda: not is_alive(pid))
    again, _ = coordination.submit("0")
    assert coordination.until(again)["status"] == "completed"


def test_background_process_of_shell_does_not_hold_the_run(coordination: Coordination) -> None:
    """End it with its run."""
    coordination.start_runner("--name", "shell", "--", "sh", "-c", "sleep 300 & echo $!; exit 0")
    run_id, session_id = coordination.submit("x")
    assert coordination.until(run_id)["status"] == "completed"
    eventually(lambda: not is_alive(int(coordination.lines(session_id)[0])))


def test_runner_names_run_in_command_environment(coordination: Coordination) -> None:
    """Compare the variables with stdin."""
    script = (
        "import json, os, sys; run = json.load(sys.stdin);"
        "print(json.dumps([run['run_id'], os.environ['COORDINATOR_RUN_ID'], os.environ['COORDINATOR_RUN_SESSION_ID'],"
        " os.environ['COORDINATOR_RUN_ATTEMPT'], 'claim_token' in run]))"
    )
    coordination.start_python_runner(script)
    run_id, session_id = coordination.submit("x")
    coordination.until(run_id)
    assert json.loads(coordination.lines(session_id)[0]) == [run_id, run_id, session_id, "1", False]


def _answers(coordination: Coordination) -> bool:
    try:
        return bool(coordination.ask("GET", "/health") == {"status": "healthy"})
    except OSError:
        return False


def test_runner_with_taken_identity_takes_next_number(
    coordination: Coordination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Take an identity that local locks do not show: another user's, or that of a container with the same hostname."""
    for name in ("one", "two", "three"):
        monkeypatch.setenv("HOME", str(tmp_path / name))
        coordination.start_python_runner("pass")
    assert {runner["executor_profile"] for runner in coordination.runners()} == {"python-1", "python-2", "python-3"}
