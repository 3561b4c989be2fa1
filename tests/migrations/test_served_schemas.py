"""Check which schemas web and worker serve: their own and newer ones, never an older one."""

import httpx
import pytest

from models.schema.migrate import downgrade, upgrade
from models.schema.revisions import newest_revision
from testkit.cluster import Cluster, Process
from testkit.servers import new_directory
from testkit.waiting import eventually
from tests.support.next_release import next_release
from tests.support.web import WebClient


@pytest.fixture
def url(database_url: str) -> str:
    return database_url.replace("postgresql://", "postgresql+psycopg://", 1)


def complete_a_run(web: Process) -> None:
    """Submit a run, dispatch it to a parked poll, and report its end."""
    client = WebClient(web.url)
    run = client.finished(client.register(web.name))
    assert client.status(run["run_id"]) == "completed"
    client.close()


def test_older_schema_is_not_served(cluster: Cluster, url: str) -> None:
    """Web and worker log the remedy, do nothing meanwhile, and begin by themselves after the migration."""
    downgrade(url, "0002")
    web, worker = cluster.start_web(wait=False), cluster.start_worker(wait=False)
    advice = f"the schema is at 0002, this version needs {newest_revision()}: run `coordinator migrate`"
    cluster.wait_until(worker, lambda: "worker waits" in worker.log(), "it waits")
    cluster.wait_until(web, lambda: advice in said_by(web, "/health/ready"), "it says why it is not ready")

    assert advice in worker.log()
    assert "worker is ready" not in worker.log()
    with httpx.Client(base_url=web.url) as client:
        refused = client.post("/runs", json={"type": "start_session", "parameters": {"prompt": "hello"}})
        assert (refused.status_code, refused.json(), refused.headers["retry-after"]) == (503, {"detail": advice}, "5")
        assert client.get("/health/live").status_code == 200
    assert "Traceback" not in worker.log()

    upgrade(url)
    for process in (web, worker):
        cluster.wait_until_ready(process)
    complete_a_run(web)


def test_worker_waiting_for_the_schema_ends_on_sigterm(cluster: Cluster, url: str) -> None:
    """End in order, with exit code 0."""
    downgrade(url, "base")
    worker = cluster.start_worker(wait=False)
    eventually(lambda: "the schema is at nothing" in worker.log())
    worker.terminate()

    assert worker.wait() == 0
    assert "worker has ended" in worker.log()


def test_schema_one_step_ahead_is_served(cluster: Cluster, database_url: str) -> None:
    """During a rolling deploy old replicas, running or just started, work on the new schema."""
    running = cluster.start_web()
    process = next_release(new_directory(cluster.directory, "release")).migrate(database_url)
    said, _ = process.communicate(timeout=60)
    assert f"schema migrated from {newest_revision()} to 9999" in said
    started = cluster.start_web()
    cluster.start_worker()

    complete_a_run(running)
    complete_a_run(started)


def said_by(web: Process, path: str) -> str:
    try:
        return httpx.get(web.url + path).text
    except httpx.TransportError:
        return ""
