"""Client commands for replays and bulks, as people and scripts call them."""

import json

import pytest

from testkit.cluster import Cluster
from testkit.waiting import eventually
from tests.support.coordination import Coordination


@pytest.fixture
def coordination(cluster: Cluster) -> Coordination:
    cluster.start_worker()
    return Coordination(cluster, cluster.start_web().url)


def stopped(coordination: Coordination, prompt: str) -> str:
    run_id, _ = coordination.submit(prompt, labels={"team": "sky"})
    coordination.ask("POST", f"/runs/{run_id}/stop")
    return run_id


def test_replay_prints_new_run(coordination: Coordination) -> None:
    """Take texts and JSON as changes; explain a run that has not ended."""
    run_id = stopped(coordination, "count")
    changes = ["--set", "priority:=5", "--set", 'parameters:={"prompt": "count again"}', "--set", "agent_name=star"]
    shown = coordination.command("replay", run_id, *changes, "--json")
    assert shown.returncode == 0, shown.stderr
    new = coordination.run(json.loads(shown.stdout)["run_id"])
    assert (new["replay_of"], new["priority"], new["agent_name"]) == (run_id, 5, "star")
    assert new["parameters"] == {"prompt": "count again"}
    refused = coordination.command("replay", new["run_id"])
    assert refused.returncode == 1
    assert "once it has ended" in refused.stderr
    for bad in ("priority", "=5", "priority:=five"):
        assert coordination.command("replay", run_id, "--set", bad).returncode == 2


def test_dry_run_shows_what_matches_and_changes_nothing(coordination: Coordination) -> None:
    run_id, _ = coordination.submit("count")
    shown = coordination.command("bulk", "stop", "--filter", "status=pending", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert run_id in shown.stdout
    assert "1 run would be stopped" in shown.stdout
    assert coordination.run(run_id)["status"] == "pending"
    assert coordination.ask("GET", "/bulk") == {"bulks": []}


def test_bulk_asks_before_it_acts(coordination: Coordination) -> None:
    """Do nothing without a yes, whether it was refused or no terminal is there."""
    run_id, _ = coordination.submit("count")
    for answer in ("n\n", ""):
        refused = coordination.command("bulk", "stop", "--filter", "status=pending", stdin=answer)
        assert refused.returncode == 1
        assert coordination.run(run_id)["status"] == "pending"
    agreed = coordination.command("bulk", "stop", "--filter", "status=pending", stdin="y\n")
    assert agreed.returncode == 0, agreed.stderr
    assert coordination.run(run_id)["status"] == "stopped"


@pytest.mark.parametrize("action", ["replay", "delete"])
def test_bulk_prints_what_it_did(coordination: Coordination, action: str) -> None:
    """Wait for its end; list and show it afterwards."""
    run_ids = [stopped(coordination, f"count {number}") for number in range(3)]
    shown = coordination.command("bulk", action, "--filter", "label=team=sky", "--filter", "status=stopped", "--yes")
    assert shown.returncode == 0, shown.stderr
    assert "3 of 3" in shown.stdout
    assert "completed" in shown.stdout
    (bulk,) = coordination.ask("GET", "/bulk")["bulks"]
    assert (bulk["action"], bulk["changed"]) == (action, 3)
    assert bulk["bulk_id"] in coordination.command("bulk", "list").stdout
    assert "3 of 3" in coordination.command("bulk", "show", bulk["bulk_id"]).stdout
    halted = json.loads(coordination.command("bulk", "halt", bulk["bulk_id"], "--json").stdout)
    assert halted["state"] == "completed"
    runs = coordination.ask("GET", "/runs")["runs"]
    if action == "replay":
        assert {run["replay_of"] for run in runs if run["replay_of"]} == set(run_ids)
    else:
        assert runs == []


def test_named_runs_take_the_place_of_filters(coordination: Coordination) -> None:
    run_id, _ = coordination.submit("count")
    for both in ([], ["--filter", "status=pending", "--run", run_id], ["--filter", "status"]):
        assert coordination.command("bulk", "stop", *both, "--yes").returncode == 2
    done = coordination.command("bulk", "stop", "--run", run_id, "--yes", "--json")
    assert json.loads(done.stdout)["changed"] == 1
    eventually(lambda: coordination.run(run_id)["status"] == "stopped", what="the stop")
    refused = coordination.command("bulk", "stop", "--filter", "colour=blue", "--yes")
    assert refused.returncode == 1
    assert "unknown_parameter" in refused.stderr or "Should be" in refused.stderr


def test_failures_are_shown_by_their_error(coordination: Coordination) -> None:
    """List groups, show one with its runs, and filter them; explain what is wrong."""
    coordination.start_runner("--", "sh", "-c", "echo no such table 17 >&2; exit 3")
    run_ids = [coordination.submit("count", labels={"team": team})[0] for team in ("sky", "sea")]
    eventually(
        lambda: all(coordination.run(run_id)["status"] == "failed" for run_id in run_ids), what="runs that failed"
    )
    listed = json.loads(coordination.command("failures", "--json").stdout)
    (group,) = listed["groups"]
    assert (group["count"], set(group["run_ids"])) == (2, set(run_ids))
    for filters, expected in {(): 2, ("--filter", "label=team=sky"): 1, ("--filter", "agent_name=other"): 0}.items():
        shown = coordination.command("failures", *filters)
        assert shown.returncode == 0, shown.stderr
        assert (group["fingerprint"] in shown.stdout) is (expected > 0)
        one = coordination.command("failures", group["fingerprint"], *filters)
        assert (one.returncode, sum(run_id in one.stdout.splitlines() for run_id in run_ids)) == (
            0 if expected else 1,
            expected,
        )
    assert json.loads(coordination.command("failures", group["fingerprint"], "--json").stdout) == group
    refused = coordination.command("failures", "--filter", "colour=red")
    assert (refused.returncode, bool(refused.stderr)) == (1, True)


def test_bulk_holds_and_releases(coordination: Coordination) -> None:
    run_id, _ = coordination.submit("count")
    held = coordination.command("bulk", "hold", "--filter", "status=pending", "--note", "until two", "--yes")
    assert (held.returncode, "1 of 1" in held.stdout) == (0, True), held.stderr
    assert [hold["note"] for hold in coordination.ask("GET", "/holds")["holds"]] == ["until two"]
    released = coordination.command("bulk", "release", "--run", run_id, "--yes")
    assert released.returncode == 0, released.stderr
    assert coordination.ask("GET", "/holds") == {"holds": []}
    assert coordination.command("bulk", "release", "--filter", "status=pending", "--note", "x").returncode == 2
