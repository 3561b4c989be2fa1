"""Stop and kill Postgres and end all our connections under load: clients get 503, runners wait."""

from itertools import chain

import httpx
import pytest
from sqlalchemy import Engine

from testkit.cluster import Cluster
from testkit.servers import OwnPostgres
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.outages import terminate_backends, without_postgres
from tests.support.run_history import assert_nothing_lost_or_doubled, claims, finish, histories, reports_refused
from tests.support.traffic import Traffic
from tests.support.web import PROMPT, WebClient

# No run demands its type, so its polls stay empty.
IDLER = {"hostname": "h", "project_dir": "/", "executor_profile": "idler", "executor": {"type": "idle", "command": "x"}}


@pytest.mark.parametrize(("seconds", "way"), [(5, "stopped"), (20, "killed")])
def test_service_resumes_after_outage_of_postgres(
    cluster: Cluster, own_postgres: OwnPostgres, own_engine: Engine, seconds: int, way: str
) -> None:
    """Meanwhile polls end in 204, reports are held until accepted, and submissions get 503."""
    webs, workers = cluster.start_processes(database_url=own_postgres.url)
    with Traffic([web.url for web in webs], runners=6) as traffic:
        traffic.until_completed(20)
        ledger = traffic.ledger
        idler = httpx.post(f"{webs[0].url}/runner/register", json=IDLER, timeout=30).json()["runner_id"]
        own_engine.dispose()
        with without_postgres(own_postgres, seconds, way):
            answers = [httpx.get(f"{web.url}/health/ready", timeout=30) for web in webs]
            polls = [
                httpx.get(f"{web.url}/runner/runs", params={"runner_id": idler, "wait": 2}, timeout=30) for web in webs
            ]
            refused = httpx.post(
                f"{webs[0].url}/runs", json={"type": "start_session", "parameters": PROMPT}, timeout=30
            )
        traffic.until_completed(30)
        finish(traffic, own_engine)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert [poll.status_code for poll in polls] == [204, 204]
    assert_nothing_lost_or_doubled(own_engine, ledger)
    assert {code for kind, code in ledger.refused() if kind == "submit"} <= {503}
    assert not ledger.refused("poll", "started", "completed", "register")
    assert not ledger.unheard
    assert not reports_refused(ledger)
    for process in chain(webs, workers):
        assert process.alive
        assert "Traceback" not in process.log()


def test_polls_parked_before_crash_restart_get_runs_after_it(
    cluster: Cluster, own_postgres: OwnPostgres, own_engine: Engine
) -> None:
    """Their rows are gone with the crash; each process restores its own, and dispatch and re-check find them."""
    webs, _ = cluster.start_processes(database_url=own_postgres.url)
    clients = [WebClient(web.url) for web in webs]
    runners = [clients[place % 2].register(f"host-{place}") for place in range(6)]
    polls = [clients[place % 2].meanwhile(clients[place % 2].poll, runners[place], 50) for place in range(6)]
    db = DbVerbs(own_engine)
    eventually(lambda: len(db.waiting()) == 6, what="parked polls")
    own_engine.dispose()
    own_postgres.kill()
    own_postgres.start()
    submitted = set()
    for place in range(6):
        submitted.add(clients[place % 2].submit()["run_id"])
    assert {poll.result(60).json()["run"]["run_id"] for poll in polls} == submitted
    for client in clients:
        client.close()


@pytest.mark.parametrize("keys", ["with keys", "without keys"])
def test_ended_connections_lose_and_double_nothing(cluster: Cluster, engine: Engine, keys: str) -> None:
    """End all our connections repeatedly, within whatever they do: runners notice nothing."""
    webs, workers = cluster.start_processes()
    with Traffic([web.url for web in webs], runners=6, keyed=keys == "with keys") as traffic:
        traffic.until_completed(10)
        ended = 0
        for _ in range(12):
            ended += terminate_backends(engine)
            traffic.until_completed(6)
        finish(traffic, engine)
    ledger = traffic.ledger
    assert ended >= 12
    assert_nothing_lost_or_doubled(engine, ledger, unheard_submissions=keys == "without keys")
    assert {code for kind, code in ledger.refused() if kind == "submit"} <= {503}
    assert not ledger.refused("poll", "started", "completed", "register")
    assert not ledger.unheard
    assert not reports_refused(ledger)
    assert {claims(history) for history in histories(engine).values()} == {1}
    for process in chain(webs, workers):
        assert process.alive
        assert "Traceback" not in process.log()
