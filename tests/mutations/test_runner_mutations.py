"""Break one mechanism of the shipped runner on purpose: its scenario must notice."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from coordinator_client import transport
from coordinator_client.errors import Refused
from devserver.supervisor import ROOT
from testkit.answering_proxy import ANSWERS


async def proxy_answer_is_not_the_coordinators() -> None:
    """Check that a 404 of a default backend raises Unreachable, not Refused."""
    status, kind, body = ANSWERS["default-backend"]
    response = httpx.Response(status, headers={"Content-Type": kind}, text=body)
    with pytest.raises(transport._NotACoordinator):
        transport._read(response)


async def test_answer_of_a_proxy_is_not_the_coordinators() -> None:
    """Run the scenario unbroken."""
    await proxy_answer_is_not_the_coordinators()


async def test_client_without_the_instance_header_rule_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy's 404 would end a run."""

    def read(response: httpx.Response, expects: object = ()) -> None:
        raise Refused(response.status_code, response.text)

    monkeypatch.setattr(transport, "_read", read)
    with pytest.raises(Refused):
        await proxy_answer_is_not_the_coordinators()


# Run in a process of its own, which adopts orphans: a test process has children that are no orphans.
SCENARIO = """
import asyncio, sys
from pathlib import Path
from runner.descendants import Descendants
from runner.process import Process
from tests.support.coordination import is_alive
from tests.support.jobs import daemon, pid_in
async def main():
    path = Path(sys.argv[1])
    exec(sys.argv[2])
    descendants = Descendants()
    descendants.start()
    process = await Process.start(
        daemon(path), environment={"PATH": "/usr/bin:/bin"}, directory="/", descendants=descendants
    )
    pid = await asyncio.to_thread(pid_in, path)
    await process.exited()
    await process.close()
    print("outlived" if is_alive(pid) else "ended")
asyncio.run(main())
"""


def daemon_ends_with_its_job(path: Path, broken: str = "pass") -> None:
    """Check that a process that has left the job's group and lost its parent is gone once the job is closed."""
    command = [sys.executable, "-c", SCENARIO, str(path), broken]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout
    with suppress(ProcessLookupError):
        os.kill(int(path.read_text()), signal.SIGKILL)
    assert said == "ended\n", f"the daemon {said}"


def test_daemon_ends_with_its_job(tmp_path: Path) -> None:
    """Run the scenario unbroken."""
    daemon_ends_with_its_job(tmp_path / "left")


@pytest.mark.parametrize(
    "broken",
    ["Descendants._strays = lambda *_: []", "Descendants.start = lambda self: None"],
    ids=["orphans are not looked for", "orphans are not adopted"],
)
def test_job_that_leaves_orphans_alone_is_noticed(tmp_path: Path, broken: str) -> None:
    """Killing the group alone leaves the daemon."""
    with pytest.raises(AssertionError, match="outlived"):
        daemon_ends_with_its_job(tmp_path / "left", broken)
