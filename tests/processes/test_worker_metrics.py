"""Metrics of worker processes: each process serves its own."""

import json
import re

import httpx

from testkit.cluster import Cluster
from testkit.ports import own_ports
from testkit.waiting import eventually
from tests.support.command import coordinator


def test_each_process_of_a_worker_serves_its_own_metrics(cluster: Cluster) -> None:
    """Start two processes by one command: both count the passes that they did, on ports in a row."""
    port = own_ports(2)
    worker = cluster.start_worker("--processes", "2", "--name", "pair", wait=False, metrics_port=port)

    def passes(number: int) -> float:
        try:
            text = httpx.get(f"http://127.0.0.1:{port + number}/metrics", timeout=30).text
        except httpx.TransportError:
            return 0.0
        found = re.findall(r"^coordinator_actor_\w*seconds_count\{.*\} ([\d.]+)$", text, re.MULTILINE)
        return sum(map(float, found))

    for number in range(2):
        eventually(lambda number=number: passes(number) > 0, 30, what=f"metrics of process {number + 1}")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        assert client.get("/health/live").json() == {"status": "alive"}
        assert client.get("/metrics").headers["content-type"].startswith("text/plain")
        assert "_created" not in client.get("/metrics").text
        assert client.head("/metrics").content == b""
        assert client.get("/metrics?x=%00").status_code == 200
        assert client.get("/runs").status_code == 404
        assert client.post("/metrics").status_code == 501
    worker.stop()


def test_metrics_port_in_use_keeps_no_worker_from_its_work(cluster: Cluster) -> None:
    port = own_ports(1)
    first = cluster.start_worker(metrics_port=port)
    second = cluster.start_worker(metrics_port=port)
    eventually(lambda: "metrics port not bound" in second.log(), what="the warning of the second")
    first.stop()
    eventually(lambda: '"metrics served"' in second.log(), what="the port to be taken over")
    assert httpx.get(f"http://127.0.0.1:{port}/health/live", timeout=30).status_code == 200


def test_service_link_of_kubernetes_is_no_metrics_port() -> None:
    rows = json.loads(coordinator("settings", "--json", COORDINATOR_METRICS_PORT="tcp://10.0.0.7:9090").stdout)
    assert next(row["value"] for row in rows if row["name"] == "COORDINATOR_METRICS_PORT") == "0"
    servers = {"DATABASE_URL": "postgresql://u@127.0.0.1:1/none", "REDIS_URL": "redis://127.0.0.1:1/0"}
    done = coordinator("worker", "--processes", "3", COORDINATOR_METRICS_PORT="65534", **servers)
    assert (done.returncode, "not so many ports" in done.stderr) == (2, True)
