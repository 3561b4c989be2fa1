"""Check SIGHUP to `coordinator up`, scripts/rolling_deploy and the balancer: faults, and what they leave."""

import os
import pty
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from runtime.processes import is_alive, port_is_free
from testkit.ports import own_port, own_ports
from testkit.servers import OwnPostgres, new_directory
from testkit.up_process import Up, answers
from testkit.waiting import eventually

StartUp = Callable[..., Up]
SMALL = ("--web", "1", "--workers", "1", "--no-runner")
QUICK = {"COORDINATOR_DRAIN_SECONDS": "1"}
# Module that every new Python process of it runs first, once the file exists.
HOOK = "sitecustomize.py"
BROKEN = "import os, sys\nif '--successor' in sys.orig_argv: os._exit(3)\n"
NOTED = "import sys\nopen({path!r}, 'a').write(' '.join(sys.orig_argv) + '\\n')\n"


@pytest.fixture
def start_up(scratch: Path) -> Iterator[StartUp]:
    """Start `coordinator up` on this test's data directory, where the code of its next processes can be changed."""
    started: list[Up] = []
    data_dir, port = new_directory(scratch, "up"), own_ports(3)

    def start(*arguments: str, **environment: str) -> Up:
        up = Up(data_dir, port, *arguments, PYTHONPATH=str(data_dir), **QUICK, **environment)
        started.append(up)
        return up

    yield start
    for up in started:
        up.end()


@pytest.fixture(scope="module")
def shared_up(scratch: Path) -> Iterator[Up]:
    """Start one for the tests that leave it serving the code of this checkout."""
    data_dir = new_directory(scratch, "shared-up")
    options = ("--web", "2", "--workers", "1", "--no-runner")
    up = Up(data_dir, own_ports(2), *options, PYTHONPATH=str(data_dir), **QUICK)
    up.line("ready:")
    yield up
    up.end()


def test_deploy_replaces_each_replica_at_its_address_or_nothing(shared_up: Up) -> None:
    """Replace nothing by new code that does not start: report the reason and exit with code 1, while the former process
    serves on. The next deploy replaces them in order, reports each step to the caller, and exits with code 0.
    """
    up = shared_up
    former = {name: up.running(name) for name in ("web-1", "web-2", "worker-1", "postgres", "redis")}
    (up.data_dir / HOOK).write_text(BROKEN)
    refused = up.rolling_deploy()
    assert refused.returncode == 1
    assert "the new web-1 ended (exit code 3)" in refused.stdout
    assert "the former one stays" in refused.stdout
    assert up.running("web-1").pid == former["web-1"].pid
    assert answers(up.urls[0], "/health/ready")

    (up.data_dir / HOOK).write_text(NOTED.format(path=str(up.data_dir / "started")))
    deployed = up.rolling_deploy()
    (up.data_dir / HOOK).unlink()
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    said = [line for line in deployed.stdout.splitlines() if "replaced: process" in line]
    assert [line.split()[0] for line in said] == ["web-1", "web-2", "worker-1"]
    for name in ("web-1", "web-2", "worker-1"):
        assert f"process {former[name].pid} by {up.running(name).pid}" in deployed.stdout
        assert not is_alive(former[name])
    assert all(is_alive(former[name]) for name in ("postgres", "redis"))
    started = (up.data_dir / "started").read_text()
    assert all(part in started for part in ("migrate", "--name web-1", "--name web-2", "--name worker-1"))
    assert all(answers(url, "/health/ready") for url in up.urls)
    assert up.pid_files() == set(former)


def test_deploy_without_database_replaces_nothing(start_up: StartUp, own_postgres: OwnPostgres) -> None:
    """The new code may need a newer schema; running processes keep holding polls."""
    up = start_up(*SMALL, DATABASE_URL=own_postgres.url)
    up.line("ready:")
    former = {name: up.running(name).pid for name in ("web-1", "worker-1")}
    own_postgres.stop()
    deployed = up.rolling_deploy()
    own_postgres.start()
    assert deployed.returncode == 1
    assert "nothing was replaced" in deployed.stdout
    assert {name: up.running(name).pid for name in former} == former


def test_deploy_without_a_running_up_is_an_error(start_up: StartUp) -> None:
    """Try before the first start and after the end."""
    up = start_up(*SMALL)
    up.line("migrate")
    assert "only just starting" in up.rolling_deploy().stdout
    up.line("ready:")
    up.signal(signal.SIGTERM)
    assert up.wait() == 0
    deployed = up.rolling_deploy()
    assert deployed.returncode == 1
    assert f"no `coordinator up` serves {up.data_dir}" in deployed.stderr


def test_sigterm_within_a_deploy_leaves_nothing_behind(start_up: StartUp) -> None:
    """End the process on trial too; refuse a second deploy meanwhile."""
    up = start_up(*SMALL)
    up.line("ready:")
    up.signal(signal.SIGHUP)
    up.line("starting its successor")
    up.signal(signal.SIGHUP)
    up.line("one is under way")
    members = up.family()
    up.signal(signal.SIGTERM)
    assert up.wait(30) == 0
    eventually(lambda: not any(map(is_alive, members)), what="the end of all")
    assert up.pid_files() == set()


def test_next_up_ends_both_processes_of_a_deploy_killed_midway(start_up: StartUp) -> None:
    """Successor and former process have a pid file each."""
    up = start_up(*SMALL)
    up.line("ready:")
    up.signal(signal.SIGHUP)
    successor = up.running("web-1.next")
    former = up.running("web-1")
    up.signal(signal.SIGKILL)
    up.wait()
    again = start_up(*SMALL)
    assert again.line("ready:")
    assert not is_alive(successor)
    assert not is_alive(former)
    assert again.pid_files() == {"postgres", "redis", "web-1", "worker-1"}


def test_balancer_is_restarted_at_its_address_and_ends_with_the_rest(start_up: StartUp) -> None:
    """Connections made during the restart wait instead of being refused."""
    port = own_port()
    up = start_up("--web", "2", "--workers", "1", "--no-runner", "--lb", "--lb-port", str(port))
    assert up.line("ready:") == f"ready: {' '.join(up.urls)}"
    assert up.balancer == f"http://127.0.0.1:{port}"
    assert answers(up.balancer, "/health/ready")
    former = up.running("balancer")
    former.kill()
    assert httpx.get(f"{up.balancer}/runs", timeout=30).status_code == 200
    assert up.running("balancer").pid != former.pid
    members = up.family()
    up.signal(signal.SIGTERM)
    assert up.wait(30) == 0
    assert not any(map(is_alive, members))
    assert port_is_free(port)


def test_port_wanted_twice_is_reported_before_anything_starts(start_up: StartUp) -> None:
    """An option chooses the balancer's port."""
    up = start_up(*SMALL, "--lb", "--port", "8764")
    assert up.wait(30) == 1
    assert "port 8764 on 127.0.0.1 cannot be used" in up.errors[-1]
    assert up.errors[-1].endswith("--lb-port.")


def test_closed_terminal_ends_up(scratch: Path) -> None:
    """SIGHUP has another meaning for a process whose terminal is gone."""
    data_dir = new_directory(scratch, "terminal")
    (data_dir / "run").mkdir()
    # Choose it here: a port chosen in the child would not be known to be taken.
    port = own_port()
    pid, terminal = pty.fork()
    if pid == 0:
        arguments = ["up", "--data", str(data_dir), "--port", str(port), "--no-console", *SMALL]
        os.execv(sys.executable, [sys.executable, "-m", "cli.main", *arguments])  # noqa: S606 -- a list of arguments, in a child of our own
    said = b""
    while b"ready:" not in said:
        said += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitpid(pid, 0)[1] == 0
    assert not list((data_dir / "run").glob("*.pid"))
