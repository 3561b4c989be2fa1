"""Log lines of healthy work: none in web and worker processes, at the default level."""

import json

import pytest

from testkit.cluster import Cluster, Process
from testkit.waiting import eventually
from tests.support.web import WebClient

RUNS = 100


def lines_after(process: Process, written: int) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in process.log()[written:].splitlines()]
    # A busy machine may answer a probe late, which is nothing of a run.
    return [line for line in lines if line["level"] != "debug" and line["logger"] != "runtime.redis_probe"]


@pytest.mark.parametrize("fast_paths", [True, False])
def test_healthy_runs_write_no_line(cluster: Cluster, *, fast_paths: bool) -> None:
    """Submit, claim, start, write an event and complete a hundred runs over two replicas."""
    webs, workers = cluster.start_processes(webs=2, workers=1, fast_paths=fast_paths)
    clients = [WebClient(web.url) for web in webs]
    runner = clients[0].register()
    written = {process: len(process.log()) for process in (*webs, *workers)}
    for number in range(RUNS):
        first, second = clients[number % 2], clients[1 - number % 2]
        first.submit()
        run = second.poll(runner, 20).json()["run"]
        assert first.report(run, runner, "started").status_code == 200
        event = {"event_type": "message", "session_id": run["session_id"], "timestamp": "t"}
        assert second.post(f"/sessions/{run['session_id']}/events", event).status_code == 201
        assert second.report(run, runner, "completed").status_code == 200

    def counted() -> bool:
        return bool(clients[0].get("/runs/counts").json()["ended"]["completed"] == RUNS)

    eventually(counted, what="the rollup to have read all runs")
    for client in clients:
        client.close()
    assert [line for process, size in written.items() for line in lines_after(process, size)] == []
