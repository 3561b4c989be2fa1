"""Explanations over HTTP: why a run does not run, and why a runner gets no run."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from models.core.callers import Role
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.answer_models import check_fields
from tests.support.callers import client_with, make_key, web_with_auth
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebClient, WebInThread, served


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings) as web:
        yield web


def why(client: WebClient, run_id: str) -> dict[str, Any]:
    """Return the explanation of a run, with the fields of its model."""
    response = client.get(f"/runs/{run_id}/why")
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    check_fields("GET /runs/{run_id}/why", 200, answer)
    return answer


def why_idle(client: WebClient, runner_id: str) -> dict[str, Any]:
    response = client.get(f"/runners/{runner_id}/why-idle")
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    check_fields("GET /runners/{runner_id}/why-idle", 200, answer)
    return answer


def codes(explained: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in explained["reasons"]]


def test_pending_run_is_explained_by_numbers_of_runners(web: WebInThread, db: DbVerbs) -> None:
    """Count runners by what each lacks, in one line, as the state changes."""
    client = web.client
    wanted = {"hostname": "build-7", "tags": ["gpu"]}
    run_id = client.submit(additional_demands=wanted)["run_id"]
    assert why(client, run_id)["headline"].startswith("No runner is registered; it fails in 5 min")

    for number in range(2):
        client.register("build-7", project_dir=f"/{number}")
    client.register("build-8", tags=["gpu"])
    client.register("build-9", tags=["gpu"])
    client.register("build-9", project_dir="/other")
    found = why(client, run_id)
    assert found["headline"].startswith(
        "0 of 5 runners can take it: 2 are not build-7, 2 lack tag gpu, 1 is not build-7 and lacks tag gpu; it fails in"
    )
    assert found["runners"]["rejected"] == {
        "tag gpu missing": 2,
        "hostname is not build-7": 2,
        "hostname is not build-7, tag gpu missing": 1,
    }
    assert found["ahead"] is None
    (reason,) = found["reasons"]
    assert (reason["code"], reason["blocking"], len(reason["detail"]["nearest"]["lacks"])) == ("no_match", True, 1)
    assert reason["until"] == client.get(f"/runs/{run_id}").json()["timeout_at"]

    taker = client.register("build-7", tags=["gpu"], capacity=1)
    found = why(client, run_id)
    assert (codes(found), found["runners"]["of_matching"]["not_polling"]) == (["matching_not_polling"], 1)
    assert "1 matches and does not ask for runs now" in found["headline"]

    first = client.submit(additional_demands=wanted, priority=1)["run_id"]
    assert client.claim(taker)["run_id"] == first
    later = client.submit(additional_demands=wanted)["run_id"]
    found = why(client, later)
    assert (codes(found), found["ahead"]["count"]) == (["matching_full", "ahead"], 1)
    assert "1 matches and is full (1 of 1); 1 run is ahead, about" in found["headline"]
    assert found["ahead"]["eta_seconds"] >= 0

    def is_silent() -> bool:
        # The sign of life of the claim may be written after it was answered.
        db.rows("UPDATE runners SET lost_at = now() WHERE runner_id = :r", r=taker)
        return codes(why(client, later))[:1] == ["matching_silent"]

    eventually(is_silent)
    db.rows("UPDATE runners SET lost_at = NULL, leave_requested_at = now() WHERE runner_id = :r", r=taker)
    assert codes(why(client, later))[:1] == ["matching_leaving"]
    db.rows("UPDATE runs SET not_for = ARRAY(SELECT registration FROM runners) WHERE run_id = :r", r=later)
    assert codes(why(client, later))[:1] == ["excluded"]


def test_run_is_explained_from_delay_to_end(web: WebInThread, db: DbVerbs) -> None:
    """Follow one session: delayed, behind, claimed, running with a limit, being stopped, stopped."""
    client = web.client
    delayed = client.submit(not_before=3600)
    assert (codes(why(client, delayed["run_id"])), why(client, delayed["run_id"])["runners"]) == (["delayed"], None)

    runner_id = client.register()
    run = client.submit(run_timeout_seconds=600, max_attempts=2)
    behind = client.resume(run["session_id"])["run_id"]
    found = why(client, behind)
    assert (codes(found), found["reasons"][0]["detail"]["run_id"]) == (["behind_in_session"], run["run_id"])

    claimed = client.claim(runner_id)
    assert codes(why(client, run["run_id"])) == ["delivered_not_started"]
    db.rows("UPDATE runs SET delivered_at = NULL WHERE run_id = :r", r=run["run_id"])
    assert codes(why(client, run["run_id"])) == ["undelivered"]
    client.report(claimed, runner_id, "started")
    found = why(client, run["run_id"])
    assert (codes(found), found["headline"]) == (["runs_out"], f"It has been running on {runner_id} for 0 s")
    db.rows("UPDATE runs SET unheld_beats = 1 WHERE run_id = :r", r=run["run_id"])
    db.rows("UPDATE runners SET last_seen = now() - interval '150 seconds' WHERE runner_id = :r", r=runner_id)
    found = why(client, run["run_id"])
    assert (codes(found), found["status"]) == (["silent", "not_held", "runs_out"], "running")
    assert not any(reason["blocking"] for reason in found["reasons"])

    assert client.post(f"/runs/{run['run_id']}/stop").status_code == 200
    found = why(client, run["run_id"])
    assert (codes(found)[0], found["reasons"][0]["detail"]["told_at"]) == ("told", None)
    assert client.poll(runner_id, 5).json()["stop_sessions"] == [run["session_id"]]
    assert "was told 0 s ago" in why(client, run["run_id"])["headline"]
    client.report(claimed, runner_id, "stopped")
    found = why(client, run["run_id"])
    assert (codes(found), found["reasons"][0]["detail"]["by"]) == (["ended_by"], "runner")
    assert why(client, behind)["headline"].startswith("It was stopped before it started, ")


def test_idle_runner_is_explained_by_what_ready_runs_demand(web: WebInThread) -> None:
    client = web.client
    runner_id = client.register("build-1", tags=["cpu"])
    assert codes(why_idle(client, runner_id)) == ["not_polling", "no_ready_run"]
    for _ in range(3):
        client.submit(additional_demands={"tags": ["gpu"]})
    client.submit(additional_demands={"hostname": "build-7"})
    found = why_idle(client, runner_id)
    assert found["headline"].endswith("4 ready runs: 3 demand tag gpu, 1 demands hostname build-7")
    assert found["ready"] == {
        "count": 4,
        "exact": True,
        "match": 0,
        "rejected": {"tag gpu": 3, "hostname build-7": 1},
    }
    client.submit()
    found = why_idle(client, runner_id)
    assert (codes(found), found["ready"]["match"]) == (["not_polling"], 1)


def test_bad_ids_are_unknown(web: WebInThread) -> None:
    """Answer 404 for ids that no row can have, and for those that none has."""
    for name in ("x", "%00", "%ff", "a" * 5000, "run_' OR 1=1", "%ed%a0%80"):
        for path in (f"/runs/{name}/why", f"/runners/{name}/why-idle"):
            assert web.client.get(path).status_code == 404, path


def test_callers_learn_no_more_than_they_may_list(settings: Settings, db: DbVerbs) -> None:
    """Name runners to those that may list them; show a runner of another's run the kind of demand only."""
    with web_with_auth(settings) as web:
        roles = (Role.USER, Role.RUNNER, Role.ADMIN)
        with ExitStack() as stack:
            ann, machine, admin = (
                stack.enter_context(client_with(web.client.url, make_key(db, role, str(role)))) for role in roles
            )
            runner_id = machine.register("secret-host")
            run_id = ann.submit(additional_demands={"tags": ["secret-tag"]})["run_id"]
            told = ann.get(f"/runs/{run_id}/why").text
            assert "secret-tag" in told
            assert runner_id not in told
            assert "secret-host" not in told
            assert runner_id in admin.get(f"/runs/{run_id}/why").text
            assert ann.get(f"/runners/{runner_id}/why-idle").status_code == 403
            assert why_idle(machine, runner_id)["ready"]["rejected"] == {"another tag": 1}
            assert why_idle(admin, runner_id)["ready"]["rejected"] == {"tag secret-tag": 1}
