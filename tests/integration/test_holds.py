"""Holds of runs: what they keep from being claimed, what goes on, and what a release gives out."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from models.claims.matching import Demands
from models.core.callers import ADMIN, Caller, Role
from models.core.errors import InvalidTransition, NotFound, TooManyHolds
from models.core.plain import NOT_PLAIN
from models.core.retries import Backoff, RetryPolicy
from models.expiry.cleanup import upkeep
from models.explanations.explain_run import explain_run
from models.explanations.reasons import RunExplanation
from models.monitoring.cluster import read_cluster
from models.runs.holds import (
    MOST_SELECTORS,
    Hold,
    HoldRun,
    RemoveHold,
    SetHold,
    hold_runs,
    list_holds,
    remove_holds,
    set_holds,
)
from models.runs.report_plain import report_plain_runs
from models.runs.search import FoundRuns, RunSearch, search_runs
from models.runs.submit_plain import submit_plain
from runtime.settings import Settings
from tests.support.answer_models import check_fields
from tests.support.callers import client_with, make_key, web_with_auth
from tests.support.clocks import due, tick
from tests.support.db_verbs import DbVerbs, start_submission
from tests.support.holds import agrees, hold, hold_run, settle, unhold
from tests.support.plain_submissions import add_profile
from tests.support.reports import accepted, report, running, stop
from tests.support.web import served, until_ready

ANN = Caller(Role.USER, "ann")
GPU = {"additional_demands": Demands(tags=("gpu", "linux"))}
SELECTORS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"everything": True}, {}, {}),
    ({"agent_name": "a"}, {"agent_name": "a"}, {"agent_name": "b"}),
    ({"demands": Demands(tags=("gpu",))}, GPU, {"additional_demands": Demands(tags=("linux",))}),
    (
        {"demands": Demands(hostname="h", tags=("gpu",))},
        {"additional_demands": Demands(hostname="h", tags=("gpu",))},
        GPU,
    ),
]


@pytest.mark.parametrize(("selector", "matching", "other"), SELECTORS)
def test_hold_keeps_the_runs_that_match_from_runners(
    db: DbVerbs, selector: dict[str, Any], matching: dict[str, Any], other: dict[str, Any]
) -> None:
    """Hold those that wait already and those that come later; give them out in their order once it is removed."""
    before = db.start(**matching)
    hold(db, **selector)
    later = db.start(priority=5, **matching)
    free = [] if "everything" in selector else [db.start(**other).run_id]
    agrees(db)
    runner = db.runner(tags=["gpu", "linux"], hostname="h")
    assert [run.run_id for run in db.claim(runner, wanted=10)] == free
    unhold(db)
    agrees(db)
    assert [run.run_id for _ in range(2) for run in db.claim(runner)] == [later.run_id, before.run_id]


def _resumed(db: DbVerbs) -> str:
    run = running(db)
    accepted(db, run, "completed")
    hold(db, everything=True)
    return db.resume(run.session_id).run_id


def _next_of_session(db: DbVerbs) -> str:
    run = running(db)
    later = db.resume(run.session_id)
    hold(db, everything=True)
    accepted(db, run, "completed")
    return later.run_id


def _delayed(db: DbVerbs) -> str:
    run = db.start(delay_seconds=600)
    hold(db, everything=True)
    due(db, run.run_id, "not_before")
    tick(db)
    return run.run_id


def _tried_again(db: DbVerbs) -> str:
    run = running(db, retry=RetryPolicy(3, Backoff(initial=0, max=0)))
    hold(db, everything=True)
    accepted(db, run, "failed")
    return run.run_id


def _held_while_running(db: DbVerbs) -> str:
    """The hold of a run in hand lets it go on, and holds it when it comes back."""
    run = running(db, retry=RetryPolicy(3, Backoff(initial=0, max=0)))
    hold_run(db, run.run_id)
    assert db.run(run.run_id).status == "running"
    hold(db, agent_name="another")
    accepted(db, run, "failed")
    return run.run_id


WAYS = (_resumed, _next_of_session, _delayed, _tried_again, _held_while_running)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
def test_every_way_to_readiness_respects_holds(db: DbVerbs, way: Callable[[DbVerbs], str]) -> None:
    run_id = way(db)
    assert not db.run(run_id).ready
    tick(db)
    assert not db.run(run_id).ready
    agrees(db)
    assert not db.claim(db.runner())
    unhold(db)
    if way is _held_while_running:
        hold_run(db, run_id, held=False)
    assert db.run(run_id).ready
    assert [run.run_id for run in db.claim(db.runner())] == [run_id]


def test_hold_of_one_run_leaves_others_and_is_undone(db: DbVerbs) -> None:
    """Repeat both; a stop ends a held run, upkeep drops its hold; another owner's run is unknown."""
    one, other = db.start(), db.start()
    first = hold_run(db, one.run_id, note="wait")
    assert (first.changed, hold_run(db, one.run_id, note="again").changed) == (True, False)
    assert [run.run_id for run in db.claim(db.runner(), wanted=5)] == [other.run_id]
    (held,) = db.do(list_holds, ADMIN)
    assert (held.run_id, held.note) == (one.run_id, "wait")
    assert db.do(hold_runs, [HoldRun(ANN, one.run_id, held=False)]) == [NotFound("run", one.run_id)]
    assert not db.do(list_holds, ANN)
    tick(db)
    assert not db.run(one.run_id).ready
    assert hold_run(db, one.run_id, held=False).changed
    assert db.run(one.run_id).ready
    hold_run(db, one.run_id)
    stop(db, one.session_id)
    assert db.do(hold_runs, [HoldRun(ADMIN, one.run_id)]) == [InvalidTransition(one.run_id, "stopped", "held")]
    db.do(upkeep)
    assert db.count("holds") == 0


def test_deadline_without_a_runner_does_not_run_while_held(db: DbVerbs) -> None:
    run = db.start(no_match_timeout_seconds=5)
    assert db.run(run.run_id).match_deadline_at is not None
    hold(db, everything=True)
    assert db.run(run.run_id).match_deadline_at is None
    unhold(db)
    left = db.one("SELECT extract(epoch FROM match_deadline_at - now()) FROM runs")
    assert 3 < left <= 5


def test_plain_statements_leave_holds_to_the_verbs(db: DbVerbs) -> None:
    add_profile(db)
    run = running(db)
    db.resume(run.session_id)
    alone = running(db)
    hold_run(db, db.start().run_id)
    assert db.do(submit_plain, [start_submission()])[0] is not NOT_PLAIN
    hold(db, agent_name="another")
    assert db.do(submit_plain, [start_submission()])[0] is NOT_PLAIN
    results = db.do(report_plain_runs, [report(run, "completed"), report(alone, "completed")])
    assert [result is NOT_PLAIN for result in results] == [True, False]


def test_expiry_applies_what_a_dead_process_left(db: DbVerbs) -> None:
    """Neither request came to its second part; a replica of the last release made a run ready besides."""
    held, free = db.start(agent_name="a"), db.start()
    db.do(set_holds, [SetHold(ADMIN, "half", "a")])
    assert db.run(held.run_id).ready
    db.rows("DELETE FROM duties")
    tick(db)
    assert (db.run(held.run_id).ready, db.run(free.run_id).ready) == (False, True)
    db.do(remove_holds, [RemoveHold(ADMIN, "half")])
    hold_run(db, free.run_id)
    db.rows("UPDATE runs SET ready = true WHERE run_id = :r", r=free.run_id)
    db.rows("DELETE FROM duties")
    tick(db)
    assert not db.run(free.run_id).ready
    db.rows("DELETE FROM duties")
    tick(db)
    assert db.run(held.run_id).ready


def test_held_runs_are_explained_counted_and_found(db: DbVerbs) -> None:
    run, other = db.start(agent_name="a"), db.start()
    hold(db, "deploy", agent_name="a", note="until two")
    found = db.do(explain_run, ADMIN, run.run_id)
    assert isinstance(found, RunExplanation)
    (reason,) = found.reasons
    assert (reason.code, reason.detail["hold"], reason.detail["note"]) == ("held", "deploy", "until two")
    assert "until two" in found.headline
    cluster = db.do(read_cluster, ())
    assert (cluster.waiting, sum(queue.ready for queue in cluster.queues)) == (
        {"delayed": 0, "held": 1, "session": 0},
        1,
    )
    for which, ids in ((True, [run.run_id]), (False, [other.run_id])):
        page = db.do(search_runs, ADMIN, RunSearch(held=which), limit=10)
        assert isinstance(page, FoundRuns)
        assert [each.run_id for each in page.runs] == ids


def test_number_of_holds_is_bounded(db: DbVerbs) -> None:
    holds = [SetHold(ADMIN, f"h{number}", "a") for number in range(MOST_SELECTORS + 1)]
    results = db.do(set_holds, holds)
    assert results[-1] == TooManyHolds(MOST_SELECTORS)
    assert all(isinstance(result, Hold) for result in results[:-1])
    assert isinstance(db.do(set_holds, [SetHold(ADMIN, "h0", everything=True)])[0], Hold)
    settle(db)


REFUSED: list[tuple[str, Any]] = [
    ("ok", {}),
    ("ok", {"everything": False}),
    ("ok", {"everything": True, "agent_name": "a"}),
    ("ok", {"demands": {}}),
    ("ok", {"demands": {"tags": "gpu"}}),
    ("ok", {"agent_name": ""}),
    ("ok", {"agent_name": "\ud800"}),
    ("ok", {"agent_name": "nul \0"}),
    ("ok", {"everything": True, "note": "x" * 201}),
    ("ok", {"everything": True, "more": 1}),
    ("ok", []),
    ("run:x", {"everything": True}),
    ("x" * 65, {"everything": True}),
]


def test_holds_over_http(settings: Settings, db: DbVerbs) -> None:
    with served(settings) as web:
        until_ready(web)
        client = web.client
        for name, body in REFUSED:
            answer = client.raw(f"/holds/{name}", json.dumps(body).encode(), "PUT")
            assert (answer.status_code, bool(answer.json()["detail"])) == (422, True), (name, body, answer.text)
        run_id = client.submit(agent_name="a")["run_id"]
        answer = client.raw("/holds/deploy", b'{"demands": {"executor_type": "autonomous"}, "note": "n"}', "PUT")
        assert answer.status_code == 200, answer.text
        check_fields("PUT /holds/{name}", 200, answer.json())
        runner_id = client.register()
        assert client.poll(runner_id).status_code == 204
        assert [run["run_id"] for run in client.get("/runs", held="true").json()["runs"]] == [run_id]
        assert client.get("/runs", held="true", ready="true").status_code == 422
        answer = client.post(f"/runs/{run_id}/hold", {"note": "mine"})
        check_fields("POST /runs/{run_id}/hold", 200, answer.json())
        assert client.http.post(f"/runs/{run_id}/hold").status_code == 200
        listed = client.get("/holds").json()
        check_fields("GET /holds", 200, listed)
        assert [hold["name"] for hold in listed["holds"]] == ["deploy", f"run:{run_id}"]
        poll = client.meanwhile(client.poll, runner_id, 30)
        web.until_parked()
        answer = client.http.delete("/holds/deploy")
        check_fields("DELETE /holds/{name}", 200, answer.json())
        assert client.http.delete("/holds/deploy").status_code == 404
        assert client.http.delete(f"/holds/run:{run_id}").status_code == 404
        answer = client.post(f"/runs/{run_id}/release")
        check_fields("POST /runs/{run_id}/release", 200, answer.json())
        assert client.post("/runs/run_unknown/hold", {}).status_code == 404
        if poll.result(60).status_code == 204:
            # Without a worker the poll may have looked before the release.
            assert client.claim(runner_id)["run_id"] == run_id
        else:
            assert poll.result().json()["run"]["run_id"] == run_id


def test_holds_of_owners(settings: Settings, db: DbVerbs) -> None:
    """Users hold and release their own runs alone; acts of an admin on these are audited."""
    with ExitStack() as stack:
        web = stack.enter_context(web_with_auth(settings))
        ann, bob = (
            stack.enter_context(client_with(web.client.url, make_key(db, Role.USER, name))) for name in ("ann", "bob")
        )
        admin = stack.enter_context(client_with(web.client.url, make_key(db, Role.ADMIN, "root")))
        run_id = ann.submit()["run_id"]
        assert bob.post(f"/runs/{run_id}/hold", {}).status_code == 404
        assert ann.raw("/holds/x", b'{"everything": true}', "PUT").status_code == 403
        assert admin.post(f"/runs/{run_id}/hold", {}).status_code == 200
        assert (len(ann.get("/holds").json()["holds"]), len(bob.get("/holds").json()["holds"])) == (1, 0)
        assert ann.post(f"/runs/{run_id}/release").status_code == 200
        assert admin.raw("/holds/x", b'{"everything": true}', "PUT").status_code == 200
        assert not ann.get("/holds").json()["holds"]
        assert admin.http.delete("/holds/x").status_code == 200
        acts = [entry["act"] for entry in admin.get("/audit").json()["entries"]]
        assert acts[:3] == ["hold_removed", "hold_set", "run_held"]
