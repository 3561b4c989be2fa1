"""Parents and children over the wire: nesting, and wake-ups of the callbacks actor; no ticker helps."""

from collections.abc import Callable

import pytest

from runtime.names import Actor
from runtime.settings import Settings
from runtime.wakeups import ActorWakeups
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.in_process_worker import running_worker
from tests.support.parents import heard_of
from tests.support.web import WebClient, served

CHILD = {"execution_mode": "async_callback"}


def test_sessions_nest_ten_deep(client: WebClient) -> None:
    """Refuse the eleventh generation with its reason; each session shows its depth."""
    parent: str | None = None
    for depth in range(11):
        parent = client.submit(parent_session_id=parent)["session_id"]
        assert client.get(f"/sessions/{parent}").json()["session"]["depth"] == depth
    body = {"type": "start_session", "parameters": {"prompt": "p"}, "parent_session_id": parent}
    refused = client.post("/runs", body)
    assert (refused.status_code, refused.json()) == (
        400,
        {"detail": "Session would be nested 11 levels deep; at most 10 are allowed"},
    )


def reported(client: WebClient, runner: str, parent: str) -> str:
    return str(client.finished(runner, parent_session_id=parent, **CHILD)["session_id"])


def reported_in_bulk(client: WebClient, runner: str, parent: str) -> str:
    run = client.started(runner, parent_session_id=parent, **CHILD)
    word = {"run_id": run["run_id"], "claim_token": run["claim_token"], "outcome": "failed", "error": "e"}
    client.post("/runner/runs/report", {"runner_id": runner, "reports": [word]})
    return str(run["session_id"])


def stopped_run(client: WebClient, runner: str, parent: str) -> str:
    run = client.submit(parent_session_id=parent, **CHILD)
    client.post(f"/runs/{run['run_id']}/stop")
    return str(run["session_id"])


def stopped_session(client: WebClient, runner: str, parent: str) -> str:
    run = client.submit(parent_session_id=parent, **CHILD)
    client.post(f"/sessions/{run['session_id']}/stop")
    return str(run["session_id"])


def deleted(client: WebClient, runner: str, parent: str) -> str:
    run = client.submit(parent_session_id=parent, **CHILD)
    client.http.delete(f"/sessions/{run['session_id']}")
    return str(run["session_id"])


def deregistered(client: WebClient, runner: str, parent: str) -> str:
    run = client.started(runner, parent_session_id=parent, **CHILD)
    client.http.delete(f"/runners/{runner}", params={"self": "true"})
    return str(run["session_id"])


@pytest.mark.parametrize(
    "end",
    [reported, reported_in_bulk, stopped_run, stopped_session, deleted, deregistered],
    ids=lambda end: end.__name__,
)
def test_end_of_child_wakes_callbacks(
    client: WebClient, settings: Settings, db: DbVerbs, end: Callable[[WebClient, str, str], str]
) -> None:
    """End it in every way."""
    parent = client.finished(client.register("parents"))["session_id"]
    with running_worker(settings):
        child = end(client, client.register("children"), parent)
        eventually(lambda: heard_of(db, parent) == [child])


def test_end_of_parents_run_wakes_callbacks_for_waiting_results(
    client: WebClient, settings: Settings, db: DbVerbs
) -> None:
    """Expect the next run when the runner polls again."""
    runner = client.register()
    run = client.started(runner)
    children = [reported(client, runner, run["session_id"]) for _ in range(2)]
    with running_worker(settings):
        client.report(run, runner, "completed")
        carried = client.claim(runner)
    assert carried["parameters"]["prompt"].startswith('<agent-callback type="aggregated" count="2">')
    assert heard_of(db, run["session_id"]) == children


def test_end_of_idle_process_wakes_callbacks_for_waiting_results(
    client: WebClient, settings: Settings, db: DbVerbs
) -> None:
    """End a session by itself while its stop is open: it is free again."""
    runner = client.register()
    run = client.started(runner)
    client.report(run, runner, "completed", session_status="idle")
    parent = run["session_id"]
    client.post(f"/sessions/{parent}/stop")
    child = reported(client, client.register("children"), parent)
    with running_worker(settings):
        client.post(f"/runner/sessions/{parent}/status", {"runner_id": runner, "status": "finished"})
        eventually(lambda: heard_of(db, parent) == [child])


def test_runs_without_parents_wake_no_callbacks(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send no wake-up for nearly all reports. Without fast paths every commit that wrote events wakes an actor."""
    settings = settings.model_copy(update={"fast_paths": False})
    notified: list[Actor] = []
    monkeypatch.setattr(ActorWakeups, "notify", lambda _, actor: notified.append(actor))
    with served(settings) as web:
        runner = web.client.register()
        eventually(lambda: Actor.CALLBACKS in notified)
        notified.clear()
        web.client.finished(runner)
        eventually(
            lambda: notified.count(Actor.BROADCAST) == 4, what="news of a submission, a claim, a start and an end"
        )
    assert Actor.DISPATCH not in notified, "no poll waits for the run, and its end gives nothing to do"
    assert Actor.CALLBACKS not in notified
