"""Command line: refusals, output, and how its processes end."""

import json
import signal
import socket
import subprocess
import sys
from importlib.metadata import version

import httpx
import psutil
import pytest

from devserver.supervisor import ROOT
from runtime.processes import is_alive
from testkit.cluster import Cluster
from testkit.waiting import eventually
from tests.support.command import coordinator

SERVERS = {"DATABASE_URL": "postgresql://u:hidden@127.0.0.1:1/none", "REDIS_URL": "redis://:hidden@127.0.0.1:1/0"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_public_address_is_refused_while_authentication_is_off(host: str) -> None:
    done = coordinator("web", "--host", host, "--port", "0", **SERVERS)
    assert done.returncode == 2
    assert "authentication is not configured" in done.stderr
    assert "COORDINATOR_INSECURE=1" in done.stderr


def test_missing_servers_are_named_by_their_variables() -> None:
    for command in ("web", "worker", "migrate"):
        done = coordinator(command)
        assert done.returncode == 2, command
        assert "DATABASE_URL" in done.stderr
        assert "Traceback" not in done.stderr


def test_unknown_coordinator_variable_is_refused_by_every_command() -> None:
    """Report a misspelt setting at the start."""
    for command in ("up", "web", "worker", "migrate", "settings"):
        done = coordinator(command, COORDINATOR_DRIAN_SECONDS="3", **SERVERS)
        assert done.returncode == 2, command
        assert "COORDINATOR_DRAIN_SECONDS" in done.stderr


def test_settings_shows_values_units_and_sources_and_masks_secrets() -> None:
    """Print columns for people and JSON for programs."""
    done = coordinator("settings", COORDINATOR_DRAIN_SECONDS="3", **SERVERS)
    assert done.returncode == 0
    drain = next(line for line in done.stdout.splitlines() if line.startswith("COORDINATOR_DRAIN_SECONDS"))
    assert drain.split()[1:4] == ["3", "seconds", "COORDINATOR_DRAIN_SECONDS"]
    assert "hidden" not in done.stdout
    rows = json.loads(coordinator("settings", "--json", **SERVERS).stdout)
    by_name = {row["name"]: row for row in rows}
    assert by_name["COORDINATOR_DATABASE_URL"]["source"] == "DATABASE_URL"
    assert by_name["COORDINATOR_DRAIN_SECONDS"]["source"] == "default"
    assert "hidden" not in json.dumps(rows)


def test_unknown_queue_is_refused() -> None:
    done = coordinator("worker", "--queues", "dispatch,typo", **SERVERS)
    assert done.returncode == 2
    assert "dispatch, feed, upkeep" in done.stderr


SERVING = "app.main, server.http_server"
RUNNER = "runner.runner, runner.slots, runtime.logs, runtime.settings"
DATABASE = {"alembic", "psycopg", "sqlalchemy"}
WEB = {"fastapi", "httpx", "jwt", "limits", "starlette", "uvicorn"}
BROKER = {"dramatiq", "redis"}


@pytest.mark.parametrize(
    ("modules", "foreign"),
    [
        (SERVING, {"alembic", "httpx", "jwt", "runner", "workers"}),
        ("workers.main", {*WEB, "alembic", "app", "runner"}),
        (RUNNER, {*DATABASE, *BROKER, *WEB - {"httpx"}, "app", "models", "workers"}),
        ("models.schema.migrate, runtime.logs", {*BROKER, *WEB, "app", "workers"}),
        ("devserver.serving", {*DATABASE, *BROKER, *WEB, "pydantic", "rich", "structlog"}),
        ("cli.main", {*DATABASE, *BROKER, *WEB, "pydantic", "rich", "structlog"}),
    ],
    ids=["web", "worker", "runner", "migrate", "up", "client and help"],
)
def test_process_imports_no_modules_of_others(modules: str, foreign: set[str]) -> None:
    """Keep starts quick: each of these modules takes 10 to 300 ms, in every process and again at each restart."""
    code = f"import sys, cli.main, {modules}; print(*sorted({foreign!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_help_lists_commands() -> None:
    said = coordinator("--help").stdout
    for command in ("up", "web", "worker", "migrate", "settings"):
        assert command in said


def test_version_names_installed_distribution() -> None:
    """Print name and version for bug reports."""
    done = coordinator("--version")
    assert done.returncode == 0
    assert done.stdout == f"coordinator {version('coordinator')}\n"


def test_web_and_worker_exit_with_0_on_sigterm(cluster: Cluster) -> None:
    """Exit in order, so that no supervisor restarts or counts it."""
    for process in (cluster.start_web(), cluster.start_worker()):
        process.terminate()
        assert process.wait(30) == 0, process.log()


def test_web_is_unready_on_sigterm_and_serves_through_its_drain(cluster: Cluster) -> None:
    """Give a load balancer time to take it out before the listener closes."""
    web = cluster.start_web(drain_seconds=4)
    web.terminate()
    eventually(lambda: httpx.get(f"{web.url}/health/ready").status_code == 503, 3, what="unready")
    assert httpx.get(f"{web.url}/runs").status_code == 200
    assert web.alive
    assert web.wait(30) == 0


def test_migrate_prints_its_steps_and_may_be_repeated(cluster: Cluster, empty_database_url: str) -> None:
    """Print the revision before and after; the second time there is nothing to do."""
    said = [coordinator("migrate", DATABASE_URL=empty_database_url, REDIS_URL=cluster.redis_url) for _ in range(2)]
    assert [done.returncode for done in said] == [0, 0]
    assert "schema migrated from nothing to" in said[0].stdout
    assert "nothing to do" in said[1].stdout


def test_taken_port_is_one_error_line(cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        web = cluster.start("web", ["web", "--host", "127.0.0.1", "--port", str(port)])
        assert web.wait(30) == 1
    assert f"cannot bind 127.0.0.1 port {port}" in web.log()
    assert "Traceback" not in web.log()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_worker_processes_are_restarted_and_end_with_their_parent(cluster: Cluster, end: signal.Signals) -> None:
    """End in order on SIGTERM, and by themselves after SIGKILL of the parent."""
    parent = cluster.start("worker", ["worker", "--processes", "2"])
    children = psutil.Process(parent.pid).children
    eventually(lambda: len(children()) == 2 and parent.log().count("ready") >= 2, 60, what="two workers")
    first, second = children()
    first.kill()
    eventually(lambda: len(children()) == 2 and first not in children(), 30, what="the restarted worker")
    assert second in children()
    members = children()
    parent.signal(end)
    parent.wait(30)
    eventually(lambda: not any(map(is_alive, members)), what="the end of the workers")
