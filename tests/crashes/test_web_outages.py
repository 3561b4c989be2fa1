"""Check the web while Postgres or Redis is away: slower, never wrong (promise 5)."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from runtime.settings import Settings
from testkit.servers import OwnPostgres, OwnRedis
from testkit.waiting import eventually
from tests.support.web import PROMPT, WebClient, WebInThread, served, until_ready

START = {"type": "start_session", "parameters": PROMPT}


@pytest.fixture
def web(own_postgres: OwnPostgres, redis_url: str) -> Iterator[WebInThread]:
    with served(Settings(database_url=own_postgres.url, redis_url=redis_url)) as web:
        until_ready(web)
        yield web


def test_clients_get_503_and_runners_wait_while_postgres_is_stopped(
    web: WebInThread, client: WebClient, own_postgres: OwnPostgres
) -> None:
    """Submissions and reads: 503 with Retry-After. Polls: 204. Reports, events, binds and heartbeats: held,
    then 200.
    """
    runner = client.register()
    run = client.started(runner)
    event = {"event_type": "message", "session_id": run["session_id"], "timestamp": "t"}
    bind = {"executor_session_id": "x", "hostname": "host", "executor_profile": "e"}
    own_postgres.stop()
    for answer in (client.post("/runs", START), client.post("/runs/batch", {"runs": [START]}), client.get("/runs")):
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert "detail" in answer.json()
    assert client.poll(runner, 0.5).status_code == 204
    assert client.poll("unknown", 0.5).status_code == 204
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert "Postgres" in ready.json()["reason"]
    parked = client.meanwhile(client.poll, runner, 60)
    held = [
        client.meanwhile(client.post, f"/sessions/{run['session_id']}/events", event),
        client.meanwhile(client.post, f"/sessions/{run['session_id']}/bind", bind),
        client.meanwhile(client.post, "/runner/heartbeat", {"runner_id": runner}),
        client.meanwhile(client.report, run, runner, "completed"),
    ]
    web.until_parked()
    own_postgres.start()
    assert [one.result(30).status_code for one in held] == [201, 200, 200, 200]
    assert client.status(run["run_id"]) == "completed"
    next_run = eventually(lambda: client.post("/runs", START).json().get("run_id"), what="a submission")
    assert parked.result(30).json()["run"]["run_id"] == next_run
    eventually(lambda: "Postgres" not in client.get("/health/ready").text, what="readiness")


def test_held_report_ends_in_503_when_the_outage_is_longer(own_postgres: OwnPostgres, redis_url: str) -> None:
    """End it after the report hold, here 1 s; repeating it later is harmless."""
    settings = Settings(database_url=own_postgres.url, redis_url=redis_url, report_hold_seconds=1)
    with served(settings) as web:
        runner = web.client.register()
        run = web.client.started(runner)
        own_postgres.stop()
        answer = web.client.report(run, runner, "completed")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        own_postgres.start()
        eventually(lambda: web.client.report(run, runner, "completed").status_code == 200, what="the repeat")


def test_killed_postgres_loses_nothing_acknowledged(client: WebClient, own_postgres: OwnPostgres) -> None:
    """Every run of a 201 exists after a crash restart, and the same key gives the same run (promise 2)."""
    keys = {
        f"key-{n}": client.post("/runs", START, **{"Idempotency-Key": f"key-{n}"}).json()["run_id"] for n in range(20)
    }
    own_postgres.kill()
    own_postgres.start()
    eventually(lambda: client.get("/runs").status_code == 200, what="Postgres")
    listed = {run["run_id"] for run in client.get("/runs").json()["runs"]}
    assert listed == set(keys.values())
    for key, run_id in keys.items():
        again = client.post("/runs", START, **{"Idempotency-Key": key})
        assert (again.status_code, again.json()["run_id"]) == (200, run_id)


def test_polls_on_a_frozen_postgres_end_in_204(web: WebInThread, client: WebClient, own_postgres: OwnPostgres) -> None:
    """Connections stay open and silent; the next poll works."""
    runner = client.register()
    with silent(own_postgres):
        assert client.poll(runner, 0.5).status_code == 204
    run_id = eventually(lambda: client.post("/runs", START).json().get("run_id"), 30, what="a submission")
    assert eventually(lambda: client.poll(runner, 5), 30, what="a run").json()["run"]["run_id"] == run_id


def test_requests_held_by_a_silent_postgres_are_answered_at_shutdown(
    web: WebInThread, client: WebClient, own_postgres: OwnPostgres
) -> None:
    """Answer requests that outlast the grace period: 204 for polls, 503 otherwise, never 500."""
    runner = client.register()
    with silent(own_postgres):
        writing = client.meanwhile(client.post, "/runs", START)
        reading = client.meanwhile(client.get, "/runs")
        polling = client.meanwhile(client.poll, runner, 60)
        eventually(lambda: len(web.server.server_state.tasks) == 3, what="all three to be held")
        web.leave(0)
        answers = [held.result(30) for held in (writing, reading, polling)]
    assert [answer.status_code for answer in answers] == [503, 503, 204]
    assert all("try again" in answer.json()["detail"] and answer.headers["retry-after"] for answer in answers[:2])


@contextmanager
def silent(postgres: OwnPostgres) -> Iterator[None]:
    """Freeze all its processes: connections stay open without an answer."""
    processes = [psutil.Process(postgres.server.pid), *psutil.Process(postgres.server.pid).children()]
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            if process.is_running():
                os.kill(process.pid, signal.SIGCONT)


def test_service_continues_without_redis(settings: Settings, own_redis: OwnRedis) -> None:
    """Claims come by the re-check, nothing fails, and readiness names what is away until it is back."""
    with served(settings.model_copy(update={"redis_url": own_redis.url})) as web:
        until_ready(web)
        runner = web.client.register()
        own_redis.kill()
        waiting = web.client.meanwhile(web.client.poll, runner, 30)
        web.until_parked()
        run_id = web.client.submit()["run_id"]
        run = waiting.result(30).json()["run"]
        assert run["run_id"] == run_id
        for outcome in ("started", "completed"):
            assert web.client.report(run, runner, outcome).status_code == 200
        eventually(lambda: "Redis" in web.client.get("/health/ready").text, what="the reason")
        own_redis.start()
        eventually(lambda: "Redis" not in web.client.get("/health/ready").text, what="Redis to be back")


def test_process_started_before_its_database_becomes_ready(own_postgres: OwnPostgres, redis_url: str) -> None:
    """The start does not wait; until then readiness is 503 and polls are held."""
    own_postgres.stop()
    with served(Settings(database_url=own_postgres.url, redis_url=redis_url)) as web:
        assert web.client.get("/health/ready").status_code == 503
        assert web.client.get("/health/live").status_code == 200
        assert web.client.poll("somebody", 0.2).status_code == 204
        own_postgres.start()
        until_ready(web)
        web.client.submit()


def test_drain_does_not_wait_for_held_reports(own_postgres: OwnPostgres, redis_url: str) -> None:
    """Answer held requests with 503 when the process must end; the runner repeats them elsewhere."""
    with served(Settings(database_url=own_postgres.url, redis_url=redis_url)) as web:
        runner = web.client.register()
        run = web.client.started(runner)
        own_postgres.stop()
        waiting = web.client.meanwhile(web.client.report, run, runner, "completed")
        parked = web.client.meanwhile(web.client.poll, runner, 60)
        web.until_parked()
        web.drain(0.5)
        assert parked.result(30).status_code == 204
        assert waiting.result(30).status_code == 503
