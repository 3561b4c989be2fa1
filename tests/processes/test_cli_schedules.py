"""Client commands for schedules, as people and scripts call them, up to the command that a runner starts."""

import json
from pathlib import Path

import pytest

from testkit.cluster import Cluster
from testkit.waiting import eventually
from tests.support.coordination import Coordination


@pytest.fixture
def coordination(cluster: Cluster) -> Coordination:
    cluster.start_worker()
    return Coordination(cluster, cluster.start_web().url)


def test_schedule_is_put_run_and_deleted(coordination: Coordination, tmp_path: Path) -> None:
    """The command of the run learns its nominal time."""
    file = tmp_path / "report.json"
    schedule = {"spec": {"every_seconds": 1}, "run": {"type": "start_session", "parameters": {"prompt": "report"}}}
    file.write_text(json.dumps(schedule | {"note": "each second"}))
    coordination.start_runner("--", "sh", "-c", 'echo "time $COORDINATOR_RUN_FIRE_AT"')
    put = coordination.command("schedules", "put", "report", str(file), "--expect-version", "0")
    assert put.returncode == 0, put.stderr
    assert "every 1 s" in put.stdout

    def shown() -> dict[str, list[dict[str, str]]]:
        found: dict[str, list[dict[str, str]]] = json.loads(
            coordination.command("schedules", "show", "report", "--json").stdout
        )
        return found

    eventually(lambda: any(fire["run_status"] == "completed" for fire in shown()["fires"]), what="a completed run")
    fire = next(fire for fire in shown()["fires"] if fire["run_status"] == "completed")
    session_id = coordination.run(fire["run_id"])["session_id"]
    assert coordination.lines(session_id) == [f"time {fire['fire_at'].replace('+00:00', 'Z')}"]
    paused = coordination.command("schedules", "pause", "report", "--note", "lunch")
    assert (paused.returncode, "lunch" in paused.stdout) == (0, True), paused.stderr
    for command, expected in {
        ("list",): "report",
        ("show", "report"): "submitted",
        ("next", "report", "--count", "2"): "UTC",
        ("trigger", "report", "--overlap", "allow"): "manual",
        ("backfill", "report", "--from", "2026-01-01", "--to", "2026-01-01T00:00:05", "--dry-run"): "5 times",
        ("resume", "report"): "active",
        ("bulk", "pause", "--prefix", "rep", "--dry-run"): "1 schedule would be paused",
        ("bulk", "pause", "--id", "report", "--id", "none", "--yes"): "1 schedule paused",
        ("bulk", "pause", "--prefix", "", "--yes"): "0 schedules would be paused",
        ("bulk", "resume", "--prefix", "report", "--yes"): "1 schedule resumed",
        ("delete", "report", "--yes"): "deleted",
    }.items():
        done = coordination.command("schedules", *command)
        assert (done.returncode, expected in done.stdout) == (0, True), (command, done.stdout, done.stderr)
    for command, code in {
        ("put", "report", str(tmp_path / "none")): 2,
        ("put", "report", "-"): 2,
        ("show", "report"): 1,
        ("bulk", "pause"): 2,
        ("bulk", "sleep", "--prefix", ""): 2,
        ("delete", "report"): 1,
        ("backfill", "report", "--from", "then", "--to", "now"): 2,
    }.items():
        assert coordination.command("schedules", *command).returncode == code, command
