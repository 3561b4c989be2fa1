"""Kill and freeze workers while they dispatch under load: hints are lost, runs are not (promises 1 and 2)."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from testkit.cluster import Cluster, Process
from tests.support.run_history import (
    assert_nothing_lost_or_doubled,
    claims,
    finish,
    histories,
    reports_refused,
)
from tests.support.traffic import Traffic

Harm = Callable[[Process, Traffic], None]


def kill(worker: Process, traffic: Traffic) -> None:
    worker.kill()


def freeze_for_a_while(worker: Process, traffic: Traffic) -> None:
    """Freeze it: Postgres rolls back its transaction, or it does so itself when it continues."""
    worker.freeze()
    traffic.until_completed(25)
    worker.thaw()


@pytest.mark.parametrize("harm", [kill, freeze_for_a_while])
def test_killed_and_frozen_workers_lose_no_run(cluster: Cluster, engine: Engine, harm: Harm) -> None:
    """Disturb each worker in turn: every run is claimed once, by a remaining worker."""
    webs, workers = cluster.start_processes(workers=2)
    with Traffic([web.url for web in webs], runners=8) as traffic:
        for worker in workers:
            traffic.until_completed(15)
            harm(worker, traffic)
        traffic.until_completed(15)
        cluster.start_worker()
        traffic.until_completed(15)
        finish(traffic, engine)
    assert_nothing_lost_or_doubled(engine, traffic.ledger)
    assert {claims(history) for history in histories(engine).values()} == {1}
    assert not traffic.ledger.refused()
    assert not traffic.ledger.unheard
    assert not reports_refused(traffic.ledger)
    assert all(web.alive and "Traceback" not in web.log() for web in webs)
