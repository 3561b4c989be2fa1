"""Retries over lost COMMITs and killed workers."""

from runtime.settings import Settings
from testkit.cluster import Cluster
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.postgres_proxy import postgres_proxy
from tests.support.run_history import assert_one_history
from tests.support.web import WebClient, served, until_ready

RETRY = {"max_attempts": 3, "backoff": {"initial": 600, "jitter": 0, "max": 600}}


def test_failure_with_lost_commit_is_one_attempt(settings: Settings, db: DbVerbs) -> None:
    """The web repeats it, the runner too: one return to pending, one more attempt, the same answer."""
    with postgres_proxy(settings.database_url) as proxy:
        own = {"database_url": proxy.url, "prepare_statements": False}
        with served(settings.model_copy(update=own)) as web:
            until_ready(web)
            runner_id = web.client.register()
            run = web.client.started(runner_id, retry=RETRY)
            proxy.lose("UPDATE runs r")
            for _ in range(2):
                answer = web.client.report(run, runner_id, "failed", error="busy", exit_code=75)
                assert (answer.status_code, answer.json()["ok"]) == (200, True)
            assert proxy.lost == 1
            history = [shown["status"] for shown in assert_one_history(db.engine)[run["run_id"]]]
            assert history == ["pending", "claimed", "running", "pending"]
            row = db.run(run["run_id"])
            assert (row.status, row.attempt, row.ready) == ("pending", 1, False)
            late = web.client.report(run, runner_id, "completed")
            assert late.status_code == 409


def test_waiting_retry_survives_the_death_of_all_processes(cluster: Cluster, db: DbVerbs) -> None:
    """Kill web and worker during the backoff; others give the run out when it is over, with its error kept."""
    (dead,), (worker,) = cluster.start_processes(webs=1, workers=1)
    client = WebClient(dead.url)
    runner_id = client.register()
    run = client.started(runner_id, retry=RETRY)
    assert client.report(run, runner_id, "failed", error="busy", retry_after=1).status_code == 200
    dead.kill()
    worker.kill()
    client.close()
    (living,), _ = cluster.start_processes(webs=1, workers=1)
    client = WebClient(living.url)
    again = client.claim(client.register("another"))
    assert (again["run_id"], again["attempt"]) == (run["run_id"], 2)
    assert client.report(run, runner_id, "failed", error="busy").status_code == 200
    assert db.run(run["run_id"]).status == "claimed"
    found = client.get(f"/runs/{run['run_id']}/timeline").json()
    assert [attempt["error"] for attempt in found["attempts"]] == ["busy", None]
    eventually(lambda: db.count("runs", "status = 'claimed'") == 1, what="the claim")
    client.close()
