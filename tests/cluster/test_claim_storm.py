"""Run two web processes and two workers at once: each run goes to one poll, and none is left."""

import pytest
from sqlalchemy import Engine

from testkit.cluster import Cluster
from tests.support.run_history import assert_nothing_lost_or_doubled, claims, finish, histories, reports_refused
from tests.support.traffic import Traffic
from tests.support.web import WebClient


@pytest.mark.parametrize("contenders", [2, 32])
def test_each_run_goes_to_one_of_many_polls_on_two_replicas(cluster: Cluster, engine: Engine, contenders: int) -> None:
    """Let polls, second claims, re-checks of both and dispatch of two workers contend: each run is claimed once."""
    webs, _ = cluster.start_processes()
    with Traffic([web.url for web in webs], runners=contenders, submitters=8, work=0, pace=0.005) as traffic:
        traffic.until_accepted(32 if contenders == 2 else 64)
        finish(traffic, engine)
    ledger = traffic.ledger
    assert_nothing_lost_or_doubled(engine, ledger)
    assert {claims(history) for history in histories(engine).values()} == {1}
    assert len(ledger.deliveries) == len(ledger.accepted)
    assert not ledger.refused()
    assert not ledger.unheard
    assert not reports_refused(ledger)


@pytest.mark.parametrize("first_comes", ["the poll", "the run"])
def test_run_posted_to_one_replica_is_completed_through_other(cluster: Cluster, first_comes: str) -> None:
    """Claim it by dispatch or by the poll's own claim."""
    webs, _ = cluster.start_processes(workers=1)
    first, second = (WebClient(web.url) for web in webs)
    runner_id = second.register()
    if first_comes == "the poll":
        poll = second.meanwhile(second.poll, runner_id, 20)
        submitted = first.submit()
    else:
        submitted = first.submit()
        poll = second.meanwhile(second.poll, runner_id, 20)
    run = poll.result(30).json()["run"]
    assert run["run_id"] == submitted["run_id"]
    assert first.status(run["run_id"]) == "claimed"
    assert second.report(run, runner_id, "started").status_code == 200
    assert first.status(run["run_id"]) == "running"
    assert second.report(run, runner_id, "completed").status_code == 200
    assert [web.status(run["run_id"]) for web in (first, second)] == ["completed", "completed"]
    for web in (first, second):
        web.close()
