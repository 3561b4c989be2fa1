"""Let a runner die among slow heartbeats, on real processes: again and again no runner is heard for longer than an
outage takes.
"""

import time
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Engine

from testkit.cluster import Cluster
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebClient

# Told 20 s, so lost after 60 s; between two rounds of heartbeats there are 18 s of silence, and an outage begins after
# 15.
TOLD, ROUND = 20, 18


@pytest.mark.timeout(240)
def test_runner_that_dies_among_slow_heartbeats_loses_its_run(cluster: Cluster, engine: Engine) -> None:
    """Note no outage between their heartbeats; end the run with its window."""
    settings: dict[str, Any] = {"told_heartbeat_seconds": TOLD, "lost_after_seconds": 6, "stale_after_seconds": 5}
    web = cluster.start_web(**settings)
    cluster.start_worker(**settings)
    db = DbVerbs(engine)
    with closing(WebClient(web.url)) as client:
        beaters = [client.register(f"slow-{number}") for number in range(2)]
        run = client.started(client.register("dead"))
        beaten = 0.0

        def has_failed() -> bool:
            nonlocal beaten
            if time.monotonic() - beaten > ROUND:
                beaten = time.monotonic()
                for runner_id in beaters:
                    assert client.post("/runner/heartbeat", {"runner_id": runner_id}).status_code == 200
            return client.status(run["run_id"]) == "failed"

        eventually(has_failed, 150, every=0.5, what="the loss of the dead runner")
    assert db.count("gaps", "kind = 'runners'") == 0
    assert db.run(run["run_id"]).error.startswith("Runner lost: no sign of life")
