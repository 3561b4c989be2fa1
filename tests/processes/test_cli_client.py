"""Client commands as people and scripts call them."""

import json
import re
import sys

import pytest

from testkit.cluster import Cluster
from testkit.waiting import eventually
from tests.support.coordination import Coordination


@pytest.fixture
def coordination(cluster: Cluster) -> Coordination:
    return Coordination(cluster, cluster.start_web().url)


def test_submit_prints_ids_of_run_and_session(coordination: Coordination) -> None:
    """Print one line for people, JSON for programs."""
    shown = coordination.command("submit", "count the stars", "--session", "mine", "--label", "team=sky")
    assert shown.returncode == 0, shown.stderr
    run_id, word, session_id, status = shown.stdout.split()
    assert (word, session_id, status) == ("session", "mine", "pending")
    run = coordination.run(run_id)
    assert run["parameters"] == {"prompt": "count the stars"}
    assert run["labels"] == {"team": "sky"}
    submitted = json.loads(coordination.command("submit", "-", "--json", stdin="from a pipe\n").stdout)
    assert coordination.run(submitted["run_id"])["parameters"] == {"prompt": "from a pipe"}


def test_submit_passes_every_option_of_a_run(coordination: Coordination) -> None:
    options = ["--tag", "gpu,big", "--profile", "p", "--hostname", "h", "--project-dir", "/d", "--priority", "5"]
    more = ["--max-attempts", "3", "--delay", "60", "--timeout", "100", "--no-match-timeout", "50"]
    submitted = json.loads(coordination.command("submit", "x", *options, *more, "--json").stdout)
    run = coordination.run(submitted["run_id"])
    assert {**run["demands"], "tags": sorted(run["demands"]["tags"])} == {
        "hostname": "h",
        "project_dir": "/d",
        "executor_profile": "p",
        "executor_type": "autonomous",
        "tags": ["big", "gpu"],
    }
    assert (run["priority"], run["max_attempts"]) == (5, 3)
    assert run["not_before"] is not None


def test_same_key_submits_once(coordination: Coordination) -> None:
    """Run the same script twice."""
    first, second = (
        json.loads(coordination.command("submit", "x", "--key", "nightly-1", "--json").stdout) for _ in range(2)
    )
    assert first["run_id"] == second["run_id"]


def test_waiting_prints_result_and_exit_code_tells_success(coordination: Coordination) -> None:
    """Exit with 0 for completed and 1 for anything else."""
    coordination.start_runner("--name", "demo", "--concurrency", "4", "--", sys.executable, "-m", "runner.demo")
    done = coordination.command("submit", "hello", "--wait")
    assert done.returncode == 0, done.stderr
    assert "You said: hello" in done.stdout
    failed = coordination.command("submit", "fail no luck", "--wait", "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["error"] == "exit code 1\nno luck"
    run_id = json.loads(failed.stdout)["run_id"]
    shown = coordination.command("run", run_id, "--log")
    assert shown.returncode == 0
    assert "no luck" in shown.stdout
    assert coordination.command("run", run_id, "--wait").returncode == 1


def test_resumed_run_is_shown_with_its_own_result_and_output(coordination: Coordination) -> None:
    """Never show the result of an earlier run of the session."""
    script = "import json, sys; prompt = json.load(sys.stdin)['parameters']['prompt']; print('says', prompt)"
    result = "; print(json.dumps({'result_text': prompt}) if prompt == 'first' else 'nothing')"
    coordination.start_python_runner(script + result, "--name", "mine")
    first = coordination.command("submit", "first", "--session", "mine", "--wait", "--json")
    second = coordination.command("submit", "second", "--resume", "mine", "--wait", "--json")
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert json.loads(first.stdout)["result"]["result_text"] == "first"
    assert json.loads(second.stdout)["result"] is None
    shown = coordination.command("run", json.loads(first.stdout)["run_id"], "--log").stdout
    assert "says first" in shown
    assert "says second" not in shown
    shown = coordination.command("run", json.loads(second.stdout)["run_id"], "--log").stdout
    assert "says second" in shown
    assert "says first" not in shown


def test_runs_are_listed_newest_first_and_page_by_page(coordination: Coordination) -> None:
    """Filter them, and write whole lines to a pipe."""
    ids = [coordination.submit(f"prompt {n}", labels={"n": str(n % 2)})[0] for n in range(5)]
    shown = coordination.command("runs", "--limit", "2")
    lines = shown.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == [ids[4], ids[3]]
    assert "prompt 4" in lines[1]
    cursor = lines[3].split()[-1]
    rest = json.loads(coordination.command("runs", "--cursor", cursor, "--json").stdout)
    assert [run["run_id"] for run in rest["runs"]] == ids[2::-1]
    odd = json.loads(coordination.command("runs", "--label", "n=1", "--status", "pending", "--json").stdout)
    assert [run["run_id"] for run in odd["runs"]] == [ids[3], ids[1]]
    assert "no runs" in coordination.command("runs", "--status", "failed").stdout


def test_runners_are_listed(coordination: Coordination) -> None:
    """Show presence, offer and runs in hand."""
    assert "no runners" in coordination.command("runners").stdout
    coordination.start_python_runner("pass", "--name", "mine", "--tags", "a,b", "--concurrency", "3")
    shown = coordination.command("runners").stdout
    assert "online" in shown
    assert "mine" in shown
    assert "a, b" in shown
    assert "0/3" in shown
    assert json.loads(coordination.command("runners", "--json").stdout)["runners"][0]["capacity"] == 3


@pytest.mark.parametrize("by", ["run", "session"])
def test_stop_takes_run_or_session(coordination: Coordination, by: str) -> None:
    run_id, session_id = coordination.submit("x", session_id="run_looks-like-one")
    shown = coordination.command("stop", run_id if by == "run" else session_id)
    assert shown.returncode == 0, shown.stderr
    assert "stopped" in shown.stdout
    assert coordination.run(run_id)["status"] == "stopped"


def test_errors_are_one_line_with_exit_code(coordination: Coordination) -> None:
    """Exit with 1 for a refusal, 2 for a wrong command line and 3 if no coordinator answers."""
    unknown = coordination.command("run", "run_unknown")
    assert unknown.returncode == 1
    assert re.fullmatch(r"coordinator: 404: Run not found \(request [0-9a-f]{16}\)\n", unknown.stderr)
    wrong = coordination.command("submit", "", "--param", "a=1")
    assert wrong.returncode == 1
    assert wrong.stderr.count("\n") == 1
    assert "prompt" in wrong.stderr
    assert coordination.command("submit").returncode == 2
    assert coordination.command("runs", "--url", "nonsense").returncode == 2
    unreachable = coordination.command("runs", url="http://127.0.0.1:9")
    assert unreachable.returncode == 3
    assert unreachable.stderr.startswith("coordinator: cannot reach http://127.0.0.1:9")
    assert unreachable.stderr.count("\n") == 1


def test_several_addresses_name_one_coordinator(coordination: Coordination) -> None:
    """Give them in the variable, comma-separated, or by repeated --url."""
    assert coordination.command("runs", url=f"http://127.0.0.1:9,{coordination.url}").returncode == 0
    assert coordination.command("runs", "--url", "http://127.0.0.1:9", "--url", coordination.url).returncode == 0


def test_runner_that_cannot_start_prints_reason(coordination: Coordination) -> None:
    """Try a missing directory, no command, and a profile that the coordinator does not take."""
    assert coordination.command("runner", "--project-dir", "/nonexistent", "--", "true").returncode == 2
    assert coordination.command("runner").returncode == 2
    refused = coordination.command("runner", "--name", "x" * 2000, "--", "true")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("coordinator: 4")


def test_option_after_command_belongs_to_command(coordination: Coordination) -> None:
    """Leave out `--`."""
    coordination.start_runner("--name", "plain", "sh", "-c", "echo $0", "--name")
    run_id, session_id = coordination.submit("x")
    coordination.until(run_id)
    eventually(lambda: coordination.lines(session_id) == ["--name"])


def test_session_of_lost_host_is_resumed_anywhere(coordination: Coordination) -> None:
    """Drop the affinity with `--anywhere` or override it with `--hostname`; refuse both for a new session."""
    first = json.loads(coordination.command("submit", "first", "--session", "mine", "--json").stdout)
    assert coordination.ask("PATCH", "/sessions/mine/metadata", {"hostname": "gone", "executor_profile": "p"})["ok"]
    plain = {"executor_type": "autonomous", "tags": []}
    wanted = {
        (): plain | {"hostname": "gone", "executor_profile": "p"},
        ("--hostname", "new"): plain | {"hostname": "new", "executor_profile": "p"},
        ("--anywhere",): plain,
        ("--anywhere", "--hostname", "new"): plain | {"hostname": "new"},
    }
    for options, demands in wanted.items():
        done = coordination.command("submit", "again", "--resume", "mine", *options, "--json")
        assert coordination.run(json.loads(done.stdout)["run_id"])["demands"] == demands, options
    refused = coordination.command("submit", "x", "--session", "other", "--anywhere")
    assert (refused.returncode, "--resume" in refused.stderr) == (2, True)
    assert first["session_id"] == "mine"


def test_why_explains_run_and_runner(coordination: Coordination) -> None:
    """Print one line that says it all; answer JSON to programs and exit code 1 for an unknown id."""
    submitted = json.loads(coordination.command("submit", "x", "--tag", "gpu", "--json").stdout)
    shown = coordination.command("why", submitted["run_id"])
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"^why +No runner is registered; it fails in 5 min unless one comes$", shown.stdout, re.MULTILINE)
    offer = {"hostname": "h", "project_dir": "/p", "executor_profile": "e", "executor": {"type": "autonomous"}}
    runner_id = coordination.ask("POST", "/runner/register", offer)["runner_id"]
    explained = json.loads(coordination.command("why", submitted["run_id"], "--json").stdout)
    assert explained["headline"].startswith("0 of 1 runner can take it: 1 lacks tag gpu; it fails in")
    idle = coordination.command("why", runner_id)
    assert "1 ready run: 1 demands tag gpu" in idle.stdout, idle.stderr
    for unknown in ("run_never_was", "lnch_never_was"):
        assert coordination.command("why", unknown).returncode == 1
