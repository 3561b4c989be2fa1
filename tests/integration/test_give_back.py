"""Runs that their runner gives back: no attempt is counted, and it does not go on for ever."""

from typing import Any

import pytest

from models.core.errors import CoordinatorError, InvalidTransition, NotFound, RunnerNotRegistered, StaleClaim
from models.runs.give_back import GiveBack, give_back_runs
from models.runs.report import Reported
from models.state.endings import MOST_FRUITLESS_CLAIMS
from models.state.runs import Run
from tests.support.reports import accepted, claimed, report, running, say, stop
from tests.support.truth import Truth
from tests.support.web import WebClient


def give_back(truth: Truth, run: Run, reason: str | None = "no disk", **values: Any) -> Reported | CoordinatorError:
    """What its holder says of it, unless values say otherwise."""
    fields: dict[str, Any] = {"runner_id": run.runner_id, "claim_token": run.claim_token} | values
    (result,) = truth.do(give_back_runs, [GiveBack(run.run_id, reason=reason, **fields)])
    return result


@pytest.mark.parametrize("make", [claimed, running])
def test_given_back_run_is_pending_without_an_attempt(truth: Truth, make: Any) -> None:
    """Claimed or running, it may be claimed at once, as if it had never been; its timeline says why."""
    run = make(truth)
    result = give_back(truth, run)
    assert isinstance(result, Reported)
    assert (result.changed, result.status, result.frees) == (True, "pending", True)
    row = truth.run(run.run_id)
    assert (row.status, row.ready, row.attempt, row.runner_id, row.started_at) == ("pending", True, 0, None, None)
    assert truth.session(run.session_id).status == "pending"
    assert truth.told_kinds(run.session_id)[-1] == "event"
    (event,) = truth.rows(
        "SELECT frame FROM events WHERE session_id = :s AND event_type = 'run_released'", s=run.session_id
    )
    assert '"no disk"' in str(event.frame).replace("'", '"')
    (again,) = truth.claim(truth.runner(name="next"))
    assert again.run_id == run.run_id


@pytest.mark.parametrize("make", [claimed, running])
def test_giving_back_twice_is_giving_back_once(truth: Truth, make: Any) -> None:
    """Also after it was given to another runner, which it leaves alone; a start that comes late is refused."""
    run = make(truth)
    give_back(truth, run)
    events = truth.count("events")
    assert isinstance(give_back(truth, run), Reported)
    (again,) = truth.claim(truth.runner(name="next"))
    assert isinstance(give_back(truth, run), Reported)
    assert truth.run(again.run_id).claim_token == again.claim_token
    assert isinstance(say(truth, report(run, "started"))[0], StaleClaim)
    assert isinstance(say(truth, report(run, "completed"))[0], StaleClaim)
    assert truth.count("events", "event_type = 'run_released'") == 1
    assert truth.count("events") > events


def test_only_the_holder_gives_back(truth: Truth) -> None:
    """By the claim's token; neither another runner nor an earlier claim."""
    run, other = running(truth), truth.runner(name="other")
    assert isinstance(give_back(truth, run, claim_token="stale"), StaleClaim)
    assert isinstance(give_back(truth, run, runner_id=other.runner_id), StaleClaim)
    assert give_back(truth, run, runner_id="lnch_x") == RunnerNotRegistered("lnch_x")
    (unknown,) = truth.do(give_back_runs, [GiveBack("run_x", other.runner_id, "t")])
    assert unknown == NotFound("run", "run_x")
    assert truth.run(run.run_id).status == "running"


@pytest.mark.parametrize("outcome", ["completed", "failed", "stopped"])
def test_ended_run_is_not_given_back(truth: Truth, outcome: str) -> None:
    """Nothing leaves a terminal status."""
    run = running(truth)
    accepted(truth, run, outcome)
    assert give_back(truth, run) == InvalidTransition(run.run_id, outcome, "released")


def test_stopping_run_that_is_given_back_is_stopped(truth: Truth) -> None:
    """Nothing of it runs: its stop is answered."""
    run = running(truth)
    stop(truth, run.session_id)
    result = give_back(truth, run)
    assert isinstance(result, Reported)
    assert (result.status, truth.session(run.session_id).status) == ("stopped", "stopped")
    assert truth.count("stop_commands") == 0


@pytest.mark.parametrize("start", [False, True], ids=["before its start", "after its start"])
def test_run_given_back_ten_times_in_a_row_fails(truth: Truth, *, start: bool) -> None:
    """With the last reason, whatever its attempts; a run that gets on meanwhile begins anew."""
    truth.start(max_attempts=5)
    runner, given_back = truth.runner(), []
    for number in range(MOST_FRUITLESS_CLAIMS):
        (run,) = truth.claim(runner)
        if start:
            accepted(truth, run, "started")
        give_back(truth, run, f"reason {number}")
        given_back.append(run)
    run = given_back[-1]
    row = truth.run(run.run_id)
    assert (row.status, row.ended_by_us) == ("failed", True)
    assert row.error == "Given back or never started 10 times; at last: reason 9"
    assert isinstance(give_back(truth, run), Reported)


def test_run_is_given_back_over_http(client: WebClient) -> None:
    """In a list of reports or alone; without the claim's token it is refused with what to add."""
    runner = client.register()
    client.submit()
    run = client.claim(runner)
    given_back = {"run_id": run["run_id"], "outcome": "released"}
    body = {"runner_id": runner, "reports": [given_back]}
    assert client.post("/runner/runs/report", body).json()["results"][0]["code"] == 422
    given_back |= {"claim_token": run["claim_token"], "reason": "no disk"}
    assert client.post("/runner/runs/report", body).json() == {"results": [{"code": 200}]}
    assert client.status(run["run_id"]) == "pending"
    again = client.claim(runner)
    path = f"/runner/runs/{run['run_id']}/released"
    refused = client.post(path, {"runner_id": runner})
    assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["body", "claim_token"])
    assert client.post(path, {"runner_id": runner, "claim_token": "stale"}).status_code == 409
    given = client.post(path, {"runner_id": runner, "claim_token": again["claim_token"], "reason": "no disk"})
    assert (given.status_code, given.json()) == (200, {"ok": True})
    events = client.get(f"/sessions/{run['session_id']}/events").json()["events"]
    assert [(one["event_type"], one["reason"]) for one in events] == [("run_released", "no disk")] * 2
