"""`coordinator up --auth`: authenticated from its first moment, and still one command for the users of its machine."""

import stat
from pathlib import Path

import httpx
import pytest

from testkit.ports import own_port
from testkit.servers import new_directory
from testkit.up_process import Up
from tests.support.callers import bearer
from tests.support.command import Ended, coordinator


@pytest.fixture
def home(scratch: Path) -> Path:
    """Return the directory where the commands are started, with the default data directory."""
    return new_directory(scratch, "up-auth")


def up(home: Path, port: int) -> Up:
    return Up(home / ".coordinator", port, "--web", "1", "--workers", "1", "--auth")


def command(home: Path, port: int, *arguments: str) -> Ended:
    return coordinator(*arguments, home=home, COORDINATOR_URL=f"http://127.0.0.1:{port}")


def test_up_with_auth_makes_key_that_commands_on_this_machine_use(home: Path) -> None:
    """Write the admin key to a file with mode 0600 and to no log.

    The runner has a key of its own; other callers are refused.
    """
    port = own_port()
    first = up(home, port)
    try:
        said = first.line("admin key")
        token = (home / ".coordinator" / "admin.token").read_text().strip()
        assert said.endswith(f"kept in {home}/.coordinator/admin.token, mode 0600")
        assert token not in "".join(first.lines)
        url = first.urls[0]
        assert httpx.get(f"{url}/runs").status_code == 401
        assert httpx.get(f"{url}/runs", headers=bearer(token)).status_code == 200
        for name in ("admin.token", "runner.token"):
            assert stat.S_IMODE((home / ".coordinator" / name).stat().st_mode) == 0o600
        done = command(home, port, "submit", "hello", "--wait")
        assert done.returncode == 0, done.stderr
        assert "You said: hello" in done.stdout
        assert len(command(home, port, "keys", "list").stdout.splitlines()) == 3
    finally:
        first.end()
    logs = "".join(path.read_text() for path in (home / ".coordinator" / "logs").glob("*.log"))
    assert token.rpartition("_")[2] not in logs
    second = up(home, port)
    try:
        assert httpx.get(f"{second.urls[0]}/runs", headers=bearer(token)).status_code == 200
        assert not [line for line in second.lines if "admin key" in line]
    finally:
        second.end()
