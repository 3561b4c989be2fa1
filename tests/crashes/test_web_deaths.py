"""Kill and freeze web processes that hold polls and have assignments on the way (promises 1 and 2)."""

import re

import pytest
from sqlalchemy import Engine, text

from testkit.cluster import Cluster, Process
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.outages import until_renewed_twice
from tests.support.run_history import assert_nothing_lost_or_doubled, assert_one_history, claims, finish
from tests.support.traffic import Traffic
from tests.support.web import WebClient


@pytest.mark.parametrize("fast_paths", [True, False], ids=["fast paths", "actors"])
def test_killed_web_process_loses_no_run(cluster: Cluster, engine: Engine, *, fast_paths: bool) -> None:
    """Its runners move to the other one, and every run is completed once."""
    bounds = {"claim_timeout_seconds": 2, "start_timeout_seconds": 5, "fast_paths": fast_paths}
    webs, workers = cluster.start_processes(**bounds)
    with Traffic([web.url for web in webs], runners=8) as traffic:
        traffic.until_completed(30)
        webs[0].kill()
        traffic.until_completed(30)
        finish(traffic, engine)
    assert_nothing_lost_or_doubled(engine, traffic.ledger)
    assert not traffic.ledger.refused()
    assert all(process.alive for process in (webs[1], *workers))


def test_parked_polls_of_killed_web_process_get_nothing_more(cluster: Cluster, db: DbVerbs) -> None:
    """A run assigned to them in the last moment is claimable again after `claim_timeout`, and nothing else is assigned
    to them.
    """
    webs, _ = cluster.start_processes(workers=1, claim_timeout_seconds=2)
    dead, living = (WebClient(web.url) for web in webs)
    runners = [dead.register(f"host-{place}") for place in range(4)]
    for runner_id in runners:
        dead.meanwhile(dead.poll, runner_id, 60)
    eventually(lambda: len(db.waiting()) == 4, what="parked polls")
    webs[0].kill()
    submitted = {living.submit()["run_id"] for _ in range(6)}
    given = {living.claim(runner_id)["run_id"] for runner_id in [*runners, runners[0], runners[1]]}
    assert given == submitted
    assert_one_history(db.engine)
    for client in (dead, living):
        client.close()


_SENT = re.compile(r'coordinator_submission_wakeups_total\{outcome="sent"\} 1')
_BLOCKED = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'coordinator-web' AND wait_event_type = 'Lock'"
)


@pytest.mark.parametrize("moment", ["before its claim", "within its claim"])
def test_web_process_killed_after_a_submission_woke_its_poll_loses_no_run(
    cluster: Cluster, db: DbVerbs, moment: str
) -> None:
    """Have the runner's next poll, at the other process, get the run: at once, or after the time to start it."""
    (dead, other), _ = cluster.start_processes(workers=1, claim_timeout_seconds=2, start_timeout_seconds=2)
    slow, quick = WebClient(dead.url), WebClient(other.url)
    runner_id = slow.register("host")
    slow.meanwhile(slow.poll, runner_id, 60)
    until_renewed_twice(db.engine)
    with db.engine.connect() as blocking:
        if moment == "before its claim":
            dead.freeze()
        else:
            blocking.execute(text("SELECT FROM waiting_polls FOR UPDATE"))
        run_id = quick.submit()["run_id"]
        eventually(lambda: _SENT.search(quick.http.get("/metrics").text) is not None, what="the wake-up")
        if moment == "within its claim":
            eventually(lambda: db.one(_BLOCKED) > 0, what="its claim")
        dead.kill()
    run = quick.claim(runner_id)
    assert run["run_id"] == run_id
    quick.report(run, runner_id, "completed").raise_for_status()
    given = assert_one_history(db.engine)[run_id]
    assert {one["runner_id"] for one in given if one["status"] == "claimed"} == {runner_id}
    assert given[-1]["status"] == "completed"
    for client in (slow, quick):
        client.close()


def test_web_process_thawed_with_an_old_assignment_starts_nothing(cluster: Cluster, db: DbVerbs) -> None:
    """The run is another runner's by then: confirming the delivery fails, and the poll waits for the next run."""
    (frozen, other), workers = cluster.start_processes(workers=1, claim_timeout_seconds=2)
    slow, quick = WebClient(frozen.url), WebClient(other.url)
    early, late = slow.register("early"), quick.register("late")
    poll = slow.meanwhile(slow.poll, early, 60)
    until_renewed_twice(db.engine)
    frozen.freeze()
    run_id = quick.submit()["run_id"]
    eventually(lambda: db.run(run_id).runner_id == early, what="assigned to the frozen process")
    eventually(lambda: db.run(run_id).status == "pending", what="released")
    run = quick.claim(late)
    assert quick.report(run, late, "started").status_code == 200
    frozen.thaw()
    next_run = quick.submit(additional_demands={"hostname": "early"})["run_id"]
    assert poll.result(30).json()["run"]["run_id"] == next_run
    assert quick.report(run, late, "completed").status_code == 200
    assert_given(db, run_id, early, late)
    assert all(process.alive and "Traceback" not in process.log() for process in (frozen, other, *workers))
    for client in (slow, quick):
        client.close()


def test_frozen_and_thawed_web_process_loses_no_run(cluster: Cluster, engine: Engine) -> None:
    """Repeat under load: the database decides on its polls and on what is in its buffers."""
    webs, workers = cluster.start_processes(claim_timeout_seconds=2, start_timeout_seconds=20)
    # Submitters that wait for the frozen process leave the others without work.
    with Traffic([web.url for web in webs], runners=8, poll_seconds=3, submit_seconds=1) as traffic:
        for _ in range(3):
            traffic.until_completed(10)
            freeze_until_released(webs[0], engine, traffic)
        finish(traffic, engine)
    assert_nothing_lost_or_doubled(engine, traffic.ledger)
    assert not traffic.ledger.refused()
    assert all(process.alive and "Traceback" not in process.log() for process in (*webs, *workers))


def freeze_until_released(web: Process, engine: Engine, traffic: Traffic) -> None:
    """Freeze it until a claim of one of its polls was released, or the others have moved well on."""
    before = sum(claims(history) - 1 for history in assert_one_history(engine).values())
    done = len(traffic.ledger.said_with(200, "completed"))
    web.freeze()

    def enough() -> bool:
        taken_back = sum(claims(history) - 1 for history in assert_one_history(engine).values())
        return taken_back > before or len(traffic.ledger.said_with(200, "completed")) > done + 20

    eventually(enough, 30, every=0.2)
    web.thaw()


def assert_given(db: DbVerbs, run_id: str, *runner_ids: str) -> None:
    """Check that the run was given to these runners in turn, and started by the last of them only."""
    history = assert_one_history(db.engine)[run_id]
    assert [one["runner_id"] for one in history if one["status"] == "claimed"] == list(runner_ids)
    assert [one["runner_id"] for one in history if one["status"] == "running"] == [runner_ids[-1]]
