"""A runner's token and its jobs, which belong to other people."""

import json
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from cli import token_hiding
from testkit.cluster import Cluster
from tests.support.command import coordinator
from tests.support.coordination import Coordination

# Searches every process that a job of the same user may read for a secret, and prints those that show it.
SPY = """
import json, pathlib, sys
secret = json.load(sys.stdin)["parameters"]["prompt"][::-1].encode()
shown = []
for process in pathlib.Path("/proc").iterdir():
    for name in ("environ", "cmdline"):
        try:
            if secret in (process / name).read_bytes():
                shown.append(f"{process.name} {name}")
        except OSError:
            pass
print(json.dumps({"shown": shown}))
"""


@pytest.mark.parametrize("way", ["environment", "option", "option="])
def test_job_cannot_read_runner_token_from_process_table(cluster: Cluster, way: str) -> None:
    """Look into /proc/PPID/environ and the command line, however the runner got the token.

    The runner works all the same.
    """
    coordination = Coordination(cluster, cluster.start_web().url)
    token = uuid4().hex
    arguments = {"option": ["--token", token], "option=": [f"--token={token}"]}.get(way, [])
    settings = {"token": token} if way == "environment" else {}
    command = ["--name", "spy", *arguments, "--", sys.executable, "-c", SPY, "--token", "of the command"]
    runner = cluster.start("runner", ["runner", "--url", coordination.url, *command], settings)
    run_id, _ = coordination.submit(token[::-1])
    run = coordination.until(run_id)
    assert run["status"] == "completed", run["error"]
    result = coordination.ask("GET", f"/sessions/{run['session_id']}/result")["result_data"]
    assert result == {"shown": []}
    assert ("warning: --token shows the token" in runner.log()) == way.startswith("option")


def test_token_is_removed_from_arguments_of_runner_only() -> None:
    """Leave the options of its command alone."""
    given = [
        "python",
        "coordinator",
        "runner",
        "--token",
        "x",
        "--name",
        "--tags",
        "a",
        "--token=y",
        "--",
        "c",
        "--token",
        "z",
    ]
    assert token_hiding._arguments(given, 3, 7) == [
        *("python", "coordinator", "runner", "--token-fd", "7", "--name", "--tags", "a", "--", "c", "--token", "z")
    ]


def test_command_with_token_argument_warns() -> None:
    """Warn, since every user of the machine sees it; the output for programs stays as it is."""
    done = coordinator("runs", "--url", "http://127.0.0.1:1", "--token", "x", "--json")
    assert done.returncode == 3
    assert "warning: --token shows the token" in done.stderr
    assert done.stdout == ""


def test_runner_with_token_file_is_not_restarted(cluster: Cluster, tmp_path: Path) -> None:
    """Keep the process, since nothing needs hiding."""
    (tmp_path / "token").write_text("secret-of-file")
    (tmp_path / "token").chmod(0o600)
    coordination = Coordination(cluster, cluster.start_web().url)
    runner = cluster.start(
        "runner",
        ["runner", "--url", coordination.url, "--name", "x", "--", sys.executable, "-c", "print(1)"],
        {"token_file": tmp_path / "token"},
    )
    run_id, _ = coordination.submit("x")
    assert coordination.until(run_id)["status"] == "completed"
    assert "warning" not in json.dumps(runner.log())


def test_restarted_runner_has_no_token_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove it in upper and lower case, since settings are read in any case."""
    monkeypatch.setenv("Coordinator_Token", "x")
    monkeypatch.setenv("COORDINATOR_TOKEN_FILE", "/token")
    assert {name.upper() for name in token_hiding.child_environment()} >= {"COORDINATOR_TOKEN_FILE", "PATH"}
    assert "COORDINATOR_TOKEN" not in {name.upper() for name in token_hiding.child_environment()}
