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
from testkit.waiting import eventually
from tests.support.coordination import is_alive


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


# End the runner when its process runs and before it has noted that.
KILLED_WHILE_STARTING = """
import asyncio, os, signal, sys
from pathlib import Path
from runner.descendants import Descendants
from runner.process import Process
from tests.support.jobs import in_session, pid_in
def begun(self, group, mark):
    pid_in(Path(sys.argv[1]))
    os.kill(os.getpid(), signal.SIGKILL)
Descendants.begun = begun
async def main():
    exec(sys.argv[2])
    descendants = Descendants()
    descendants.start()
    command = in_session(Path(sys.argv[1]))
    await Process.start(command, environment={"PATH": "/usr/bin:/bin"}, directory="/", descendants=descendants)
asyncio.run(main())
"""


def job_ends_with_the_runner_that_starts_it(path: Path, broken: str = "pass") -> None:
    """Check that the guard knows a job before the runner knows its process group."""
    command = [sys.executable, "-c", KILLED_WHILE_STARTING, str(path), broken]
    assert subprocess.run(command, cwd=ROOT, timeout=120, check=False).returncode == -signal.SIGKILL
    pid = int(path.read_text())
    try:
        # The mutated guard ends at once: it has nothing to look for.
        eventually(lambda: not is_alive(pid), 10, what="the end of the job")
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_job_ends_with_the_runner_that_is_killed_while_starting_it(tmp_path: Path) -> None:
    """Run the scenario unbroken."""
    job_ends_with_the_runner_that_starts_it(tmp_path / "job")


def test_guard_that_is_told_after_the_start_is_noticed(tmp_path: Path) -> None:
    """The job would go on, and run a second time elsewhere."""
    with pytest.raises(AssertionError, match="the end of the job"):
        job_ends_with_the_runner_that_starts_it(
            tmp_path / "job",
            "tell = Descendants._tell_guard; "
            "Descendants._tell_guard = lambda self, line: None if line[0] == '?' else tell(self, line)",
        )


@pytest.mark.parametrize(
    "broken",
    ["Descendants._strays = lambda *_: []", "Descendants.start = lambda self: None"],
    ids=["orphans are not looked for", "orphans are not adopted"],
)
def test_job_that_leaves_orphans_alone_is_noticed(tmp_path: Path, broken: str) -> None:
    """Killing the group alone leaves the daemon."""
    with pytest.raises(AssertionError, match="outlived"):
        daemon_ends_with_its_job(tmp_path / "left", broken)
