"""Run compose's Caddyfile in a real Caddy before real replicas: running, dying and never started ones."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from runtime.processes import write_pid_file
from testkit.cluster import Cluster, Process
from testkit.ports import own_port
from testkit.servers import new_directory
from testkit.waiting import eventually
from tests.support.artefacts import CADDYFILE
from tests.support.web import WebClient

CADDY = Path(sys.executable).with_name("caddy")


class Balancer:
    """Caddy with the deployed Caddyfile, on another port."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._configuration = directory / "Caddyfile"
        self.url = f"http://127.0.0.1:{own_port()}"
        ours = CADDYFILE.read_text().replace("\n:8080 {", f"\n{self.url} {{")
        assert self.url in ours
        self._configuration.write_text(ours)

    def start(self, replicas: list[str]) -> Process:
        log_file = self._directory / "caddy.log"
        with log_file.open("wb") as log:
            popen = subprocess.Popen(
                [str(CADDY), "run", "--config", str(self._configuration), "--adapter", "caddyfile"],
                env=environment(self._directory, replicas),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                start_new_session=True,
            )
        write_pid_file(self._directory / "run" / "caddy.pid", popen.pid)
        return Process("caddy", popen, log_file, self.url)


def environment(home: Path, replicas: list[str]) -> dict[str, str]:
    admin = f"127.0.0.1:{own_port()}"
    return {"PATH": os.defpath, "HOME": str(home), "WEB_REPLICAS": " ".join(replicas), "CADDY_ADMIN": admin}


@pytest.fixture
def balancer(cluster: Cluster) -> Balancer:
    return Balancer(new_directory(cluster.directory, "balancer"))


def test_caddy_accepts_the_file(tmp_path: Path) -> None:
    """Find it formatted too."""
    for command in (["validate", "--adapter", "caddyfile", "--config"], ["fmt", "--diff"]):
        done = subprocess.run(
            [str(CADDY), *command, str(CADDYFILE)],
            env=environment(tmp_path, ["coordinator-web-1:8765", "coordinator-web-2:8765"]),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_dead_and_missing_replicas_fail_no_request(cluster: Cluster, balancer: Balancer) -> None:
    """Skip names of compose that do not resolve or refuse connections."""
    webs = [cluster.start_web() for _ in range(2)]
    addresses = [web.url.removeprefix("http://") for web in webs]
    caddy = balancer.start([*addresses, f"127.0.0.1:{own_port()}", "coordinator-web-8.invalid:8765"])
    cluster.processes.append(caddy)
    cluster.wait_until_ready(caddy)
    client = WebClient(balancer.url)
    runner = client.register()

    for _ in range(10):
        client.submit()
    webs[0].kill()
    # Caddy repeats a GET on a connection that has just closed, but no POST.
    assert [client.get("/runners").status_code for _ in range(10)] == [200] * 10
    for _ in range(10):
        client.submit()
    client.finished(runner)
    assert len(client.get("/runs").json()["runs"]) == 21
    client.close()


def test_polls_and_streams_pass_through_unchanged(cluster: Cluster, balancer: Balancer) -> None:
    """Hold a poll until its run comes; deliver a stream's first frames while it is open."""
    web = cluster.start_web()
    caddy = balancer.start([web.url.removeprefix("http://")])
    cluster.processes.append(caddy)
    cluster.wait_until_ready(caddy)
    client = WebClient(balancer.url)
    runner = client.register()
    poll = client.meanwhile(client.poll, runner, 20)
    eventually(lambda: parked(web) == "1.0", what="the poll is parked")
    submitted = client.submit()

    assert poll.result(30).json()["run"]["run_id"] == submitted["run_id"]
    with httpx.stream("GET", f"{balancer.url}/sse/sessions", timeout=30) as stream:
        frames = stream.iter_lines()
        assert any(line.startswith("id: v1.") for line in frames)
        assert any(submitted["run_id"] in line or submitted["session_id"] in line for line in frames)
    client.close()


def parked(web: Process) -> str:
    """Return the number of polls that a replica holds, from its metrics."""
    lines = httpx.get(f"{web.url}/metrics").text.splitlines()
    return next((line.rpartition(" ")[2] for line in lines if line.startswith("coordinator_polls_parked")), "")
