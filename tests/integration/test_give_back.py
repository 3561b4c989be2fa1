"""Runs that their runner gives back: no attempt is counted, and it does not go on for ever."""

from typing import Any

import pytest

from models.core.errors import CoordinatorError, InvalidTransition, NotFound, RunnerNotRegistered, StaleClaim
from models.runs.give_back import GiveBack, give_back_runs
from models.runs.report import Reported
from models.state.endings import MOST_FRUITLESS_CLAIMS
from models.state.runs import Run
from tests.support.db_verbs import DbVerbs
from tests.support.reports import accepted, claimed, report, running, say, stop
from tests.support.web import WebClient


def give_back(db: DbVerbs, run: Run, reason: str | None = "no disk", **values: Any) -> Reported | CoordinatorError:
    """What its holder says of it, unless values say otherwise."""
    fields: dict[str, Any] = {"runner_id": run.runner_id, "claim_token": run.claim_token} | values
    (result,) = db.do(give_back_runs, [GiveBack(run.run_id, reason=reason, **fields)])
    return result


@pytest.mark.parametrize("make", [claimed, running])
def test_given_back_run_is_pending_without_an_attempt(db: DbVerbs, make: Any) -> None:
    """Claimed or running, it may be claimed at once, as if it had never been; its timeline says why."""
    run = make(db)
    result = give_back(db, run)
    assert isinstance(result, Reported)
    assert (result.changed, result.status, result.frees) == (True, "pending", True)
    row = db.run(run.run_id)
    assert (row.status, row.ready, row.attempt, row.runner_id, row.started_at) == ("pending", True, 0, None, None)
    assert db.session(run.session_id).status == "pending"
    assert db.told_kinds(run.session_id)[-1] == "event"
    (event,) = db.rows(
        "SELECT frame FROM events WHERE session_id = :s AND event_type = 'run_released'", s=run.session_id
    )
    assert '"no disk"' in str(event.frame).replace("'", '"')
    (again,) = db.claim(db.runner(name="next"))
    assert again.run_id == run.run_id


@pytest.mark.parametrize("make", [claimed, running])
def test_giving_back_twice_is_giving_back_once(db: DbVerbs, make: Any) -> None:
    """Also after it was given to another runner, which it leaves alone; a start that comes late is refused."""
    run = make(db)
    give_back(db, run)
    events = db.count("events")
    assert isinstance(give_back(db, run), Reported)
    (again,) = db.claim(db.runner(name="next"))
    assert isinstance(give_back(db, run), Reported)
    assert db.run(again.run_id).claim_token == again.claim_token
    assert isinstance(say(db, report(run, "started"))[0], StaleClaim)
    assert isinstance(say(db, report(run, "completed"))[0], StaleClaim)
    assert db.count("events", "event_type = 'run_released'") == 1
    assert db.count("events") > events


def test_only_the_holder_gives_back(db: DbVerbs) -> None:
    """By the claim's token; neither another runner nor an earlier claim."""
    run, other = running(db), db.runner(name="other")
    assert isinstance(give_back(db, run, claim_token="stale"), StaleClaim)
    assert isinstance(give_back(db, run, runner_id=other.runner_id), StaleClaim)
    assert give_back(db, run, runner_id="lnch_x") == RunnerNotRegistered("lnch_x")
    (unknown,) = db.do(give_back_runs, [GiveBack("run_x", other.runner_id, "t")])
    assert unknown == NotFound("run", "run_x")
    assert db.run(run.run_id).status == "running"


@pytest.mark.parametrize("outcome", ["completed", "failed", "stopped"])
def test_ended_run_is_not_given_back(db: DbVerbs, outcome: str) -> None:
    """Nothing leaves a terminal status."""
    run = running(db)
    accepted(db, run, outcome)
    assert give_back(db, run) == InvalidTransition(run.run_id, outcome, "released")


def test_stopping_run_that_is_given_back_is_stopped(db: DbVerbs) -> None:
    """Nothing of it runs: its stop is answered."""
    run = running(db)
    stop(db, run.session_id)
    result = give_back(db, run)
    assert isinstance(result, Reported)
    assert (result.status, db.session(run.session_id).status) == ("stopped", "stopped")
    assert db.count("stop_commands") == 0


@pytest.mark.parametrize("start", [False, True], ids=["before its start", "after its start"])
def test_run_given_back_ten_times_in_a_row_fails(db: DbVerbs, *, start: bool) -> None:
    """With the last reason, whatever its attempts; a run that gets on meanwhile begins anew."""
    db.start(max_attempts=5)
    runner, given_back = db.runner(), []
    for number in range(MOST_FRUITLESS_CLAIMS):
        (run,) = db.claim(runner)
        if start:
            accepted(db, run, "started")
        give_back(db, run, f"reason {number}")
        given_back.append(run)
    run = given_back[-1]
    row = db.run(run.run_id)
    assert (row.status, row.ended_by_us) == ("failed", True)
    assert row.error == "Given back or never started 10 times; at last: reason 9"
    assert isinstance(give_back(db, run), Reported)


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
