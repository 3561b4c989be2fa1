"""Check stops between two instances while Redis is away, flushed or frozen: the re-check tells them (promise 5)."""

from collections.abc import Callable, Iterator

import pytest

from testkit.cluster import Cluster
from testkit.servers import OwnRedis, redis_client
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebClient


def flush(redis: OwnRedis) -> None:
    """Remove all data and subscriptions."""
    client = redis_client(redis.url)
    client.flushall()
    client.client_kill_filter(_type="pubsub")


FAULTS: dict[str, Callable[[OwnRedis], None]] = {
    "away": OwnRedis.stop,
    "killed": OwnRedis.kill,
    "frozen": OwnRedis.freeze,
    "flushed": flush,
}


@pytest.fixture
def clients(cluster: Cluster, own_redis: OwnRedis) -> Iterator[tuple[WebClient, WebClient]]:
    """Serve two processes that share a Redis of the test's own."""
    webs, _ = cluster.start_processes(webs=2, workers=0, redis_url=own_redis.url)
    here, there = (WebClient(web.url) for web in webs)
    yield here, there
    for client in (here, there):
        client.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_stop_reaches_poll_of_another_process_without_redis(
    clients: tuple[WebClient, WebClient], own_redis: OwnRedis, fault: str
) -> None:
    """Cover leaves too."""
    here, there = clients
    runner_id = here.register()
    run = here.started(runner_id)
    poll = there.meanwhile(there.poll, runner_id, 30)
    eventually(lambda: b"coordinator_polls_parked 1.0" in there.get("/metrics").content, what="a parked poll")
    FAULTS[fault](own_redis)
    assert here.post(f"/runs/{run['run_id']}/stop").json()["status"] == "stopping"
    assert poll.result(60).json() == {"stop_sessions": [run["session_id"]]}

    assert here.report(run, runner_id, "stopped").status_code == 200
    last = there.meanwhile(there.poll, runner_id, 30)
    assert here.http.delete(f"/runners/{runner_id}").status_code == 200
    assert last.result(60).json() == {"deregistered": True}


def test_stop_is_published_to_process_that_holds_poll(clients: tuple[WebClient, WebClient], db: DbVerbs) -> None:
    """Read the metrics of real processes."""
    here, there = clients
    runner_id = here.register()
    run = here.started(runner_id)
    poll = there.meanwhile(there.poll, runner_id, 30)
    eventually(db.waiting, what="a parked poll")
    assert here.post(f"/runs/{run['run_id']}/stop").json()["status"] == "stopping"
    assert poll.result(60).json() == {"stop_sessions": [run["session_id"]]}
    sent = b'coordinator_poll_wakeups_total{outcome="sent"} 1.0'
    eventually(lambda: sent in here.get("/metrics").content, what="a wake-up that was sent")
