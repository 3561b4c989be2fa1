"""The command line where it needs no server: what it refuses, prints and promises."""

import json
import subprocess
import sys

import pytest

from cli.supervisor import ROOT, Backoff, describe


def coordinator(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


SERVERS = {"DATABASE_URL": "postgresql://u:secret@127.0.0.1:1/none", "REDIS_URL": "redis://:secret@127.0.0.1:1/0"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_a_public_address_is_refused_with_the_reason(host: str) -> None:
    """Safe by default: as long as nobody has to authenticate, nobody else may reach it."""
    done = coordinator("web", "--host", host, "--port", "0", **SERVERS)
    assert done.returncode == 2
    assert "authentication is not configured" in done.stderr
    assert "COORDINATOR_INSECURE=1" in done.stderr


def test_without_servers_it_says_which_variable_is_missing() -> None:
    """A sentence and exit code 2, no traceback."""
    for command in ("web", "worker", "migrate"):
        done = coordinator(command)
        assert done.returncode == 2, command
        assert "DATABASE_URL" in done.stderr
        assert "Traceback" not in done.stderr


def test_an_unknown_variable_of_ours_is_refused_everywhere() -> None:
    """A typo in a setting must not be found in production."""
    for command in ("up", "web", "worker", "migrate", "settings"):
        done = coordinator(command, COORDINATOR_DRIAN_SECONDS="3", **SERVERS)
        assert done.returncode == 2, command
        assert "COORDINATOR_DRAIN_SECONDS" in done.stderr


def test_settings_shows_values_units_and_sources_and_masks_secrets() -> None:
    """For people in columns, for machines as JSON."""
    done = coordinator("settings", COORDINATOR_DRAIN_SECONDS="3", **SERVERS)
    assert done.returncode == 0
    drain = next(line for line in done.stdout.splitlines() if line.startswith("COORDINATOR_DRAIN_SECONDS"))
    assert drain.split()[1:4] == ["3", "seconds", "COORDINATOR_DRAIN_SECONDS"]
    assert "secret" not in done.stdout
    rows = json.loads(coordinator("settings", "--json", **SERVERS).stdout)
    by_name = {row["name"]: row for row in rows}
    assert by_name["COORDINATOR_DATABASE_URL"]["source"] == "DATABASE_URL"
    assert by_name["COORDINATOR_DRAIN_SECONDS"]["source"] == "default"
    assert "secret" not in json.dumps(rows)


def test_an_unknown_queue_is_refused() -> None:
    """A worker that serves nothing would look healthy."""
    done = coordinator("worker", "--queues", "dispatch,typo", **SERVERS)
    assert done.returncode == 2
    assert "dispatch, feed, upkeep" in done.stderr


def test_help_lists_the_commands_without_loading_their_rooms() -> None:
    """`--help` and the client commands answer at once: no SQLAlchemy, no FastAPI, no Dramatiq."""
    code = (
        "import sys, cli.main\n"
        "heavy = {'sqlalchemy', 'fastapi', 'dramatiq', 'uvicorn', 'redis', 'psycopg', 'pydantic', 'httpx'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    said = coordinator("--help").stdout
    for command in ("up", "web", "worker", "migrate", "settings"):
        assert command in said


def test_backoff_doubles_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """And begins anew for a process that has lived for a while."""
    now = 100.0
    monkeypatch.setattr("cli.supervisor.time.monotonic", lambda: now)
    backoff = Backoff()
    delays = []
    for _ in range(8):
        backoff.born()
        delays.append(backoff.died())
    assert delays == [0.5, 1, 2, 4, 8, 15, 15, 15]
    backoff.born()
    now += 60
    assert backoff.died() == 0.5


def test_an_end_is_described_for_people() -> None:
    """The signal's name, not a negative number."""
    assert describe(3) == "exit code 3"
    assert describe(-9) == "killed by SIGKILL"
    assert describe(-250) == "killed by signal 250"
