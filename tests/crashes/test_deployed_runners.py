"""Check what deployed runners must survive, their flaws included: none gives up, and nothing stays stuck."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from testkit.cluster import Cluster
from testkit.deployed_runner import DeployedRunner
from testkit.servers import OwnPostgres
from testkit.waiting import eventually
from tests.support.coordination import TERMINAL, Coordination
from tests.support.db_verbs import DbVerbs
from tests.support.outages import outage, until_renewed_twice, without_postgres
from tests.support.run_history import assert_one_history, claims

Start = Callable[..., DeployedRunner]
FREEZE_SECONDS, RESTART_SECONDS = 20, 10


@pytest.fixture
def start_runner(tmp_path: Path) -> Iterator[Start]:
    """Start a deployed runner of this name at this address; wait for its registration unless told otherwise."""
    started: list[DeployedRunner] = []

    def start(name: str, url: str, *, wait: bool = True, **values: Any) -> DeployedRunner:
        runner = DeployedRunner(tmp_path / f"{name}-{len(started)}", url, hostname=name, **values)
        started.append(runner)
        if wait:
            eventually(lambda: runner.runner_id, what="registered")
        return runner

    yield start
    for runner in started:
        runner.kill()


def spawned(*runners: DeployedRunner) -> list[str]:
    """Return the runs for which any of the runners started a process, one entry per start."""
    return [entry["run_id"] for runner in runners for entry in runner.ledger("spawned")]


def only_for(hostname: str) -> dict[str, Any]:
    return {"additional_demands": {"hostname": hostname}}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seconds", [20, 60])
def test_deployed_runners_survive_outage_of_postgres(
    cluster: Cluster, own_postgres: OwnPostgres, own_engine: Engine, start_runner: Start, seconds: int
) -> None:
    """Survive 20 s without a doubled or lost run. After 60 s the runners live, and a run whose end was not heard fails
    as orphaned; none is stuck.

    Runs begin and end before, during and after the outage. An end may have been stored although its answer was lost.
    """
    webs, workers = cluster.start_processes(database_url=own_postgres.url, orphan_after_seconds=10)
    coordination = Coordination(cluster, webs[0].url)
    runners = [start_runner(f"host-{place}", webs[place].url) for place in range(2)]
    lengths = [0.5, 3, 6, 12, seconds + 8]
    before = [coordination.submit(f"sleep {length}")[0] for length in lengths]
    eventually(lambda: {*before} == {*spawned(*runners)}, what="all begun")
    own_engine.dispose()
    with without_postgres(own_postgres, seconds, "killed"):
        pass
    after = [coordination.submit("sleep 1")[0] for _ in range(6)]
    runs = {run_id: coordination.until(run_id, within=60) for run_id in (*before, *after)}

    assert all(runner.alive for runner in runners)
    assert sorted(spawned(*runners)) == sorted([*before, *after])
    told = assert_one_history(own_engine)
    assert {claims(history) for history in told.values()} == {1}
    unheard = {run_id for runner in runners for run_id in before if not heard(runner, run_id)}
    assert not (unheard and seconds == 20)
    for run_id, run in runs.items():
        if run_id in unheard and run["status"] == "failed":
            assert "no sign of life" in run["error"]
        else:
            assert run["status"] == "completed"
    assert all(process.alive and "Traceback" not in process.log() for process in (*webs, *workers))


def heard(runner: DeployedRunner, run_id: str) -> bool:
    """Return whether this runner reported the end of this run and was answered 200."""
    if not runner.ledger("spawned", run_id):
        return True
    return [entry["code"] for entry in runner.ledger("completed", run_id)] == [200]


@pytest.mark.timeout(240)
def test_deployed_runner_survives_ten_stops_at_once(cluster: Cluster, db: DbVerbs, start_runner: Start) -> None:
    """Handle them one after the other, 10 s each for processes that ignore SIGTERM; meanwhile the runner
    does not poll.
    """
    webs, _ = cluster.start_processes(workers=1)
    coordination = Coordination(cluster, webs[0].url)
    runner = start_runner("host", webs[1].url)
    prompts = ["stubborn 300"] * 2 + ["sleep 300"] * 8
    runs = dict(coordination.submit(prompt) for prompt in prompts)
    for run_id in runs:
        coordination.until(run_id, "running")
    for session_id in runs.values():
        coordination.ask("POST", f"/sessions/{session_id}/stop")
    ended = {run_id: coordination.until(run_id, within=120)["status"] for run_id in runs}
    assert set(ended.values()) == {"stopped"}
    assert sorted(entry["run_id"] for entry in runner.ledger("stopped")) == sorted(runs)
    assert {entry["code"] for entry in runner.ledger("stopped")} == {200}
    again, _ = coordination.submit("now")
    assert coordination.until(again)["status"] == "completed"
    assert runner.alive
    assert db.count("stop_commands") == 0
    assert_one_history(db.engine)


@pytest.mark.timeout(240)
def test_killed_deployed_runner_comes_back_once_its_former_process_is_stale(
    cluster: Cluster, db: DbVerbs, start_runner: Start
) -> None:
    """Refuse it while the former process counts as online, then accept it; the former process's runs continue or end,
    nothing else.
    """
    webs, _ = cluster.start_processes(workers=1, told_heartbeat_seconds=10)
    coordination = Coordination(cluster, webs[0].url)
    runner = start_runner("host", webs[1].url, heartbeat=10)
    lost, _ = coordination.submit("sleep 300")
    done, _ = coordination.submit("now", max_attempts=2)
    again, _ = coordination.submit("sleep 300", max_attempts=2)
    for run_id in (lost, again):
        coordination.until(run_id, "running")
    coordination.until(done)
    with outage(RESTART_SECONDS, runner.kill, runner.start):
        waiting, _ = coordination.submit("now")
    codes = eventually(lambda: accepted_twice(runner), 60, every=0.1, what="registered again")
    assert codes[:2] == [200, 409]
    assert set(codes[1:-1]) == {409}
    failed = coordination.until(lost, within=30)
    assert failed["status"] == "failed"
    assert "another process took its place" in failed["error"] or "no sign of life" in failed["error"]
    assert coordination.until(waiting, within=30)["status"] == "completed"
    assert coordination.until(again, "running", within=30)["attempt"] == 2
    assert [run_id for run_id in spawned(runner) if run_id == again] == [again, again]
    stopped = coordination.ask("POST", f"/runs/{again}/stop")
    assert stopped["status"] == "stopping"
    assert coordination.until(again)["status"] == "stopped"
    assert coordination.run(done)["status"] == "completed"
    assert_one_history(db.engine)


def accepted_twice(runner: DeployedRunner) -> list[int]:
    """Return the answers to its registrations once the second one is accepted."""
    codes = [entry["code"] for entry in runner.ledger("register")]
    return codes if codes.count(200) == 2 else []


def test_resumes_submitted_to_two_replicas_run_one_after_the_other(
    cluster: Cluster, db: DbVerbs, start_runner: Start
) -> None:
    """Give both to the session's runner, although another one is free."""
    webs, _ = cluster.start_processes(workers=1)
    here, there = (Coordination(cluster, web.url) for web in webs)
    runner, other = start_runner("host", webs[0].url), start_runner("other", webs[1].url)
    first, session_id = here.submit("now", **only_for("host"))
    here.until(first)
    runs = [web.submit("sleep 2", resume=True, session_id=session_id)[0] for web in (here, there)]
    for run_id in runs:
        assert here.until(run_id)["status"] == "completed"
    assert spawned(runner) == [first, *runs]
    assert spawned(other) == []
    order = [(one["what"], one["run_id"]) for one in runner.ledger() if one.get("run_id") in runs]
    assert order.index(("completed", runs[0])) < order.index(("spawned", runs[1]))
    assert_one_history(db.engine)


def test_web_process_frozen_for_20_seconds_starts_no_run_twice(
    cluster: Cluster, db: DbVerbs, start_runner: Start
) -> None:
    """Its poll was given a run, which the other runner has by the time the process continues."""
    webs, _ = cluster.start_processes(workers=1)
    coordination = Coordination(cluster, webs[1].url)
    early = start_runner("early", webs[0].url)
    until_renewed_twice(db.engine)
    with outage(FREEZE_SECONDS, webs[0].freeze, webs[0].thaw):
        run_id, _ = coordination.submit("sleep 5")
        eventually(lambda: db.run(run_id).runner_id == early.runner_id, what="assigned to the frozen process")
        late = start_runner("late", webs[1].url)
    assert coordination.until(run_id)["status"] == "completed"
    next_run, _ = coordination.submit("now", **only_for("early"))
    assert coordination.until(next_run, within=40)["status"] == "completed"
    assert spawned(early) == [next_run]
    assert spawned(late) == [run_id]
    assert early.alive
    assert not early.ledger("poll_failed")
    histories = assert_one_history(db.engine)
    assert claims(histories[run_id]) == 2
    assert {history[-1]["status"] for history in histories.values()} <= TERMINAL
