"""Held polls: wake-ups, costs, and at most one answer each (ARCHITECTURE, A poll)."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text

from runtime.postgres import transaction
from runtime.pubsub import publish_assignments
from runtime.redis_client import sync_client
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.dispatch_pass import dispatch_waiting
from tests.support.web import WebClient, WebInThread, served


@pytest.fixture
def slow(settings: Settings) -> Settings:
    """Return settings without re-checks and fast paths during the test: only the test's actions wake a poll."""
    return settings.model_copy(update={"recheck_seconds": 3600.0, "fast_paths": False})


@pytest.fixture
def web(slow: Settings) -> Iterator[WebInThread]:
    with served(slow) as web:
        yield web


def waiting_rows(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM waiting_polls")).scalar_one())


def dispatch(engine: Engine) -> dict[str, list[dict[str, str]]]:
    """Return the assignments of a worker's pass, not published yet."""
    with transaction(engine) as connection:
        done = dispatch_waiting(connection)
    return {
        instance: [
            {"poll_id": assignment.poll_id, "run_id": assignment.run_id, "claim_token": assignment.claim_token}
            for assignment in assignments
        ]
        for instance, assignments in done.by_instance.items()
    }


def tell(settings: Settings, assignments: dict[str, list[dict[str, str]]]) -> None:
    redis = sync_client(settings.redis_url)
    publish_assignments(redis, assignments)
    redis.close()


def connected(web: WebInThread) -> None:
    eventually(lambda: web.app.state.web.subscription.connected, what="the subscription")


def test_poll_ends_with_204_at_its_time_and_leaves_no_row(client: WebClient, engine: Engine) -> None:
    assert client.poll(client.register(), 0.2).status_code == 204
    assert waiting_rows(engine) == 0


def test_published_assignment_ends_poll(web: WebInThread, client: WebClient, engine: Engine, slow: Settings) -> None:
    """Assign in a worker, publish through Redis, confirm and answer in the instance."""
    connected(web)
    runner = client.register()
    waiting = client.meanwhile(client.poll, runner, 30)
    web.until_parked()
    run_id = client.submit()["run_id"]
    tell(slow, dispatch(engine))
    answer = waiting.result(30)
    assert answer.json()["run"]["run_id"] == run_id
    assert client.report(answer.json()["run"], runner, "started").status_code == 200
    assert waiting_rows(engine) == 0


def test_several_assignments_of_one_poll_are_one_answer(
    web: WebInThread, client: WebClient, engine: Engine, slow: Settings
) -> None:
    """Apply `max` to dispatch too."""
    connected(web)
    waiting = client.meanwhile(client.poll, client.register(), 30, max=5)
    web.until_parked()
    ids = {client.submit()["run_id"] for _ in range(3)}
    tell(slow, dispatch(engine))
    assert {run["run_id"] for run in waiting.result(30).json()["runs"]} == ids


def test_assignment_with_lost_message_is_delivered_by_recheck(
    web: WebInThread, client: WebClient, engine: Engine
) -> None:
    """Read the assignment from Postgres: Redis carries only wake-ups."""
    waiting = client.meanwhile(client.poll, client.register(), 30)
    web.until_parked()
    run_id = client.submit()["run_id"]
    assert dispatch(engine)
    web.recheck()
    assert waiting.result(30).json()["run"]["run_id"] == run_id


def test_message_about_ended_claim_delivers_nothing(
    web: WebInThread, client: WebClient, engine: Engine, slow: Settings
) -> None:
    """Read an old message in the buffer of a frozen process: it must not start a second process (promise 1)."""
    connected(web)
    waiting = client.meanwhile(client.poll, client.register(), 30)
    web.until_parked()
    run = client.submit()
    old = dispatch(engine)
    client.post(f"/runs/{run['run_id']}/stop")
    tell(slow, old)
    other = client.submit()
    eventually(lambda: web.rechecked(waiting.done), every=0.1, what="the next run")
    assert waiting.result(30).json()["run"]["run_id"] == other["run_id"]


def test_client_that_hung_up_gets_no_run(web: WebInThread, client: WebClient, engine: Engine) -> None:
    """Remove its row as it leaves; a run submitted then stays pending for others."""
    runner = client.register()
    with client.held(f"/runner/runs?runner_id={runner}&wait=30"):
        web.until_parked()
    eventually(lambda: web.parked == 0 and waiting_rows(engine) == 0, what="the end of the poll")
    run_id = client.submit()["run_id"]
    assert dispatch(engine) == {}
    assert client.status(run_id) == "pending"
    assert client.claim(client.register("other"))["run_id"] == run_id


def test_run_assigned_to_client_that_hung_up_is_released_at_once(
    web: WebInThread, client: WebClient, engine: Engine
) -> None:
    """Hang up while the assignment is on its way: the run does not wait for the claim deadline."""
    runner = client.register()
    with client.held(f"/runner/runs?runner_id={runner}&wait=30"):
        web.until_parked()
        run_id = client.submit()["run_id"]
        assert dispatch(engine)
        assert client.status(run_id) == "claimed"
    eventually(lambda: client.status(run_id) == "pending", what="the release")
    assert client.claim(client.register("other"))["run_id"] == run_id


def test_parked_rows_lost_in_crash_restart_are_restored(web: WebInThread, client: WebClient, engine: Engine) -> None:
    """Re-insert by the re-check rows that vanished without an assignment (UNLOGGED tables)."""
    waiting = client.meanwhile(client.poll, client.register(), 30)
    web.until_parked()
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE waiting_polls"))
    eventually(lambda: web.rechecked(lambda: waiting_rows(engine) == 1), every=0.1, what="the row")
    run_id = client.submit()["run_id"]
    eventually(lambda: web.rechecked(waiting.done), every=0.1, what="the run")
    assert waiting.result(30).json()["run"]["run_id"] == run_id


def test_two_polls_of_one_runner_get_different_runs(web: WebInThread, client: WebClient) -> None:
    runner = client.register()
    held = [client.meanwhile(client.poll, runner, 30) for _ in range(3)]
    web.until_parked(3)
    ids = {client.submit()["run_id"] for _ in range(3)}
    eventually(lambda: web.rechecked(lambda: all(poll.done() for poll in held)), every=0.1, what="three answers")
    assert {poll.result().json()["run"]["run_id"] for poll in held} == ids


def test_polls_of_ending_process_leave_no_rows(slow: Settings, engine: Engine) -> None:
    """End parked polls with 204 in the drain, and delete their rows."""
    with served(slow) as web:
        waiting = web.client.meanwhile(web.client.poll, web.client.register(), 60)
        web.until_parked()
        web.drain(0.2)
        answer: Any = waiting.result(30)
        assert answer.status_code == 204
        assert answer.headers["connection"] == "close"
    assert waiting_rows(engine) == 0


def test_draining_process_answers_polls_with_available_runs(slow: Settings) -> None:
    """Go on serving, with `Connection: close`."""
    with served(slow) as web:
        run_id = web.client.submit()["run_id"]
        runner = web.client.register()
        web.drain(30)
        answer = web.client.poll(runner, 30)
        assert answer.json()["run"]["run_id"] == run_id
        assert answer.headers["connection"] == "close"
        assert web.client.get("/health/ready").status_code == 503
        assert web.client.get("/health/ready").json() == {"status": "draining"}
        assert web.client.get("/health").status_code == 200
