"""Releases: runs that their runner returns count no attempt, and not forever."""

from typing import Any

import pytest

from models.core.errors import CoordinatorError, InvalidTransition, NotFound, RunnerNotRegistered, StaleClaim
from models.runs.release import ReleaseRun, release_runs
from models.runs.report import Reported
from models.state.endings import MAX_FAILED_DELIVERIES
from models.state.runs import Run
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.db_verbs import DbVerbs
from tests.support.reports import accepted, claimed, report, running, say, stop
from tests.support.web import WebClient


def release(db: DbVerbs, run: Run, reason: str | None = "no disk", **values: Any) -> Reported | CoordinatorError:
    """Return the result of a release by the run's holder, with these values changed."""
    fields: dict[str, Any] = {"runner_id": run.runner_id, "claim_token": run.claim_token} | values
    (result,) = db.do(release_runs, [ReleaseRun(run.run_id, reason=reason, **fields)])
    return result


@pytest.mark.parametrize("make", [claimed, running])
def test_released_run_is_pending_without_attempt(db: DbVerbs, make: Any) -> None:
    """Release it while claimed and while running.

    It may be claimed at once, as if new; its timeline names the reason.
    """
    run = make(db)
    result = release(db, run)
    assert isinstance(result, Reported)
    assert (result.changed, result.status, result.frees) == (True, "pending", True)
    row = db.run(run.run_id)
    assert (row.status, row.ready, row.attempt, row.runner_id, row.started_at) == ("pending", True, 0, None, None)
    assert db.session(run.session_id).status == "pending"
    assert db.told_kinds(run.session_id)[-1] == "event"
    (event,) = db.rows(
        f"SELECT frame FROM {RECORDED_EVENTS} WHERE session_id = :s AND event_type = 'run_released'", s=run.session_id
    )
    assert '"no disk"' in str(event.frame).replace("'", '"')
    (again,) = db.claim(db.runner(name="next"))
    assert again.run_id == run.run_id


@pytest.mark.parametrize("make", [claimed, running])
def test_repeated_release_is_one_release(db: DbVerbs, make: Any) -> None:
    """Repeat it after the run went to another runner, which keeps it; refuse a late start."""
    run = make(db)
    release(db, run)
    events = db.count(RECORDED_EVENTS)
    assert isinstance(release(db, run), Reported)
    (again,) = db.claim(db.runner(name="next"))
    assert isinstance(release(db, run), Reported)
    assert db.run(again.run_id).claim_token == again.claim_token
    assert isinstance(say(db, report(run, "started"))[0], StaleClaim)
    assert isinstance(say(db, report(run, "completed"))[0], StaleClaim)
    assert db.count(RECORDED_EVENTS, "event_type = 'run_released'") == 1
    assert db.count(RECORDED_EVENTS) > events


def test_only_holder_releases_run(db: DbVerbs) -> None:
    """Compare the claim token: refuse another runner and an earlier claim."""
    run, other = running(db), db.runner(name="other")
    assert isinstance(release(db, run, claim_token="stale"), StaleClaim)
    assert isinstance(release(db, run, runner_id=other.runner_id), StaleClaim)
    assert release(db, run, runner_id="lnch_x") == RunnerNotRegistered("lnch_x")
    (unknown,) = db.do(release_runs, [ReleaseRun("run_x", other.runner_id, "t")])
    assert unknown == NotFound("run", "run_x")
    assert db.run(run.run_id).status == "running"


@pytest.mark.parametrize("outcome", ["completed", "failed", "stopped"])
def test_ended_run_is_not_released(db: DbVerbs, outcome: str) -> None:
    run = running(db)
    accepted(db, run, outcome)
    assert release(db, run) == InvalidTransition(run.run_id, outcome, "released")


def test_released_stopping_run_is_stopped(db: DbVerbs) -> None:
    """Answer its stop, since nothing of it runs."""
    run = running(db)
    stop(db, run.session_id)
    result = release(db, run)
    assert isinstance(result, Reported)
    assert (result.status, db.session(run.session_id).status) == ("stopped", "stopped")
    assert db.count("stop_commands") == 0


@pytest.mark.parametrize("start", [False, True], ids=["before its start", "after its start"])
def test_run_released_ten_times_in_a_row_fails(db: DbVerbs, *, start: bool) -> None:
    """Fail with the last reason, whatever its attempts; a start in between resets the count."""
    db.start(max_attempts=5)
    runner, given_back = db.runner(), []
    for number in range(MAX_FAILED_DELIVERIES):
        (run,) = db.claim(runner)
        if start:
            accepted(db, run, "started")
        release(db, run, f"reason {number}")
        given_back.append(run)
    run = given_back[-1]
    row = db.run(run.run_id)
    assert (row.status, row.ended_by_us) == ("failed", True)
    assert row.error == "Given back or never started 10 times; at last: reason 9"
    assert isinstance(release(db, run), Reported)


def test_run_is_released_over_http(client: WebClient) -> None:
    """Send it in a list of reports or alone; without the claim token it is refused with what to add."""
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
    assert [(event["event_type"], event["reason"]) for event in events] == [("run_released", "no disk")] * 2
