"""Rehearse a move with real processes: import beside serving ones, resume what came, and take the way back."""

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from testkit.cluster import Cluster
from tests.support.command import Ended, coordinator
from tests.support.coordination import Coordination
from tests.support.old_database import OldDatabase, at


@pytest.fixture
def old(tmp_path: Path) -> OldDatabase:
    old = OldDatabase(tmp_path / "observability.db")
    old.session("ses_0123456789ab", executor_profile="moved")
    old.run("run_0123456789ab")
    old.event("ses_0123456789ab", at(4), event_type="result", result_text="before the move")
    old.session("ses_waits", "pending")
    old.run("run_f123456789ab", "ses_waits", status="pending", claimed_at=None, started_at=None, completed_at=None)
    return old


def command(cluster: Cluster, *arguments: str) -> Ended:
    return coordinator(*arguments, DATABASE_URL=cluster.database_url)


def test_moved_sessions_go_on_here(cluster: Cluster, old: OldDatabase, tmp_path: Path) -> None:
    """Import with web, worker and runner at work: the pending run is executed, the finished session resumed."""
    coordination = Coordination(cluster, cluster.start_web().url)
    cluster.start_worker()
    coordination.start_runner("--name", "moved", "--", sys.executable, "-m", "runner.demo")
    before, _ = coordination.submit("at work")
    done = command(cluster, "import", "--sqlite", str(old.path), "--json")
    assert (done.returncode, json.loads(done.stdout)["imported"]) == (0, {"sessions": 2, "runs": 2, "events": 1})
    assert coordination.until("run_f123456789ab")["status"] == "completed"
    assert coordination.ask("GET", "/sessions/ses_0123456789ab/result")["result_text"] == "before the move"
    resumed, _ = coordination.submit("after the move", session_id="ses_0123456789ab", resume=True)
    assert coordination.until(resumed)["status"] == "completed"
    assert coordination.until(before)["status"] == "completed"
    assert coordination.ask("GET", "/sessions/ses_0123456789ab/result")["result_text"] == "You said: after the move"
    assert coordination.ask("GET", "/runs/run_0123456789ab/result")["result_text"] == "before the move"
    agent = tmp_path / "agents" / "mover" / "agent.json"
    agent.parent.mkdir(parents=True)
    agent.write_text('{"name": "mover", "description": "Moves"}')
    again = command(cluster, "import", "--sqlite", str(old.path), "--config", str(tmp_path))
    assert "agents: 1 created, 0 replaced, 0 unchanged" in again.stdout
    assert coordination.ask("GET", "/agents/mover")["description"] == "Moves"
    assert (again.returncode, again.stdout.splitlines()[0]) == (
        0,
        "imported 0 sessions, 0 runs, 0 events; 2 sessions were there already",
    )
    back = tmp_path / "back.db"
    assert command(cluster, "export", "--sqlite", str(back)).returncode == 0
    with closing(sqlite3.connect(back)) as connection:
        found = connection.execute("SELECT session_id, status FROM sessions ORDER BY created_at").fetchall()
    assert ("ses_0123456789ab", "finished") in found
    assert len(found) == 3


def test_report_says_what_did_not_come_and_why(cluster: Cluster, old: OldDatabase, tmp_path: Path) -> None:
    """Exit with 1, also in a dry run; refuse files that are none, owners that are none, and to overwrite."""
    old.session("ses_bad", "unheard-of")
    done = command(cluster, "import", "--sqlite", str(old.path), "--dry-run", "--owner", "ann")
    assert done.returncode == 1
    assert "would import 2 sessions, 2 runs, 1 events; 0 sessions were there already" in done.stdout
    assert "refused: 1 x session, unknown_status: a status is unknown" in done.stdout
    assert "ses_bad: status: 'unheard-of'" in done.stdout
    assert "agents, capabilities, scripts" in done.stdout
    (tmp_path / "text").write_text("no database")
    done = command(cluster, "import", "--sqlite", str(tmp_path / "text"))
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        f"coordinator: {tmp_path / 'text'} is no SQLite database",
    )
    assert command(cluster, "import", "--sqlite", str(tmp_path / "none")).returncode == 2
    assert command(cluster, "import").returncode == 2
    done = command(cluster, "import", "--config", str(tmp_path))
    assert (done.returncode, "has none of the directories agents, " in done.stderr) == (1, True)
    assert command(cluster, "import", "--sqlite", str(old.path), "--owner", " ").returncode == 2
    done = command(cluster, "export", "--sqlite", str(old.path))
    assert (done.returncode, "exists" in done.stderr) == (1, True)


def test_import_needs_the_newest_schema(empty_database_url: str, old: OldDatabase) -> None:
    done = coordinator("import", "--sqlite", str(old.path), DATABASE_URL=empty_database_url)
    assert (done.returncode, "run `coordinator migrate`" in done.stderr) == (1, True)
