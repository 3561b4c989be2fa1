"""Drain a runner: it keeps what it has, gets nothing new, and takes runs again when the drain is undone."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from models.claims.polls import recheck_polls
from models.core.callers import Caller, Role
from models.core.errors import NotFound
from models.expiry.cleanup import upkeep
from models.monitoring.cluster import read_cluster
from models.overview.queues import read_queues
from models.runners.drain import SetDrain, set_drains
from models.runners.leave import LeaveRunner, deregister_runners
from models.runners.listing import list_runners
from models.runners.register import Registered, register_runners
from models.runners.registration import Registration
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.integration.test_audit import acts
from tests.integration.test_http_explanations import codes, why, why_idle
from tests.integration.test_poll_wakeups import Pair, pair
from tests.support.answer_models import check_fields
from tests.support.callers import client_with, make_key, web_with_auth
from tests.support.clocks import fall_silent, tick
from tests.support.db_verbs import DbVerbs, Runner, poll_request, told
from tests.support.matching import no_match_due
from tests.support.reports import claimed, heartbeat
from tests.support.runner_drains import claimed_by, drain, registered_by_the_last_release, undrain
from tests.support.web import WebClient, WebInThread, served

BOSS = Caller(Role.ADMIN, "boss", "key:crd_0123456789ab")
OFFER = partial(Registration, "host", "/project", "profile", executor_type="autonomous")


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings) as web:
        yield web


def drained(client: WebClient, runner_id: str, body: Any = None) -> dict[str, Any]:
    """Drain a runner over HTTP; return it as the answer shows it."""
    answer = client.post(f"/runners/{runner_id}/drain", {} if body is None else body)
    assert answer.status_code == 200, answer.text
    check_fields("POST /runners/{runner_id}/drain", 200, answer.json())
    runner: dict[str, Any] = answer.json()
    return runner


def undrained(client: WebClient, runner_id: str) -> dict[str, Any]:
    answer = client.http.delete(f"/runners/{runner_id}/drain")
    assert answer.status_code == 200, answer.text
    check_fields("DELETE /runners/{runner_id}/drain", 200, answer.json())
    runner: dict[str, Any] = answer.json()
    return runner


def test_draining_runner_keeps_its_runs_and_gets_no_other(web: WebInThread) -> None:
    """Report, send heartbeats, stop: all of it goes on. The list shows since when and why."""
    client = web.client
    runner_id = client.register(capacity=4)
    ended, stopped = client.started(runner_id), client.started(runner_id)
    shown = drained(client, runner_id, {"reason": "new kernel"})
    assert (shown["drain_reason"], shown["capacity"], shown["runs_in_hand"]) == ("new kernel", 4, 2)
    assert drained(client, runner_id, {"reason": "another"})["draining_since"] == shown["draining_since"]
    (listed,) = client.get("/runners").json()["runners"]
    assert (listed["draining_since"], listed["drain_reason"], listed["status"]) == (
        shown["draining_since"],
        "new kernel",
        "online",
    )
    waiting = client.submit()["run_id"]
    assert client.poll(runner_id).status_code == 204
    holding = {"runner_id": runner_id, "holding": [ended["run_id"], stopped["run_id"]]}
    assert client.post("/runner/heartbeat", holding).json()["not_yours"] == []
    assert client.report(ended, runner_id, "completed").status_code == 200
    client.post(f"/runs/{stopped['run_id']}/stop")
    assert client.poll(runner_id, 10).json() == {"stop_sessions": [stopped["session_id"]]}
    assert client.report(stopped, runner_id, "stopped").status_code == 200
    assert client.status(waiting) == "pending"
    shown = undrained(client, runner_id)
    assert (shown["draining_since"], shown["drain_reason"], shown["capacity"]) == (None, None, 4)
    assert undrained(client, runner_id) | {"seconds_since_heartbeat": 0} == shown | {"seconds_since_heartbeat": 0}
    assert client.claim(runner_id)["run_id"] == waiting


def test_parked_poll_waits_through_a_drain_and_claims_after_it(web: WebInThread) -> None:
    """Park it before the drain: runs submitted meanwhile do not reach it."""
    client = web.client
    runner_id = client.register()
    poll = client.meanwhile(client.poll, runner_id, 30)
    web.until_parked()
    drained(client, runner_id)
    eventually(lambda: [poll.ask.draining for poll in web.app.state.web.polls._polls.values()] == [True])
    run_id = client.submit()["run_id"]
    eventually(lambda: web.rechecked(lambda: client.status(run_id) == "pending"))
    assert not poll.done()
    undrained(client, runner_id)
    assert poll.result(20).json()["run"]["run_id"] == run_id


def test_end_of_a_drain_reaches_a_poll_on_another_instance(both: Pair) -> None:
    """Wake it through Redis, without a re-check and without a worker."""
    runner_id = both.here.client.register()
    poll = both.poll(runner_id)
    drained(both.here.client, runner_id)
    polls = both.there.app.state.web.polls._polls
    eventually(lambda: [poll.ask.draining for poll in polls.values()] == [True], what="not told of the drain")
    run_id = both.here.client.submit()["run_id"]
    undrained(both.here.client, runner_id)
    answer = poll.result(30)
    assert answer.status_code == 200, "not told"
    assert answer.json()["run"]["run_id"] == run_id


@pytest.fixture
def both(settings: Settings) -> Iterator[Pair]:
    with pair(settings) as both:
        yield both


def recheck_finds_the_end_of_a_drain(db: DbVerbs) -> None:
    """Lose the wake-ups of a drain and of its end."""
    runner = db.runner()
    poll = db.park(runner)
    drain(db, runner.runner_id)
    (marked,) = db.poll(recheck_polls, poll)
    assert told(marked).draining
    run_id = db.start().run_id
    assert db.recheck(poll)[0].parked
    undrain(db, runner.runner_id)
    assert [run.run_id for run in db.recheck(poll)[0].runs] == [run_id], "not claimed"


def test_recheck_finds_a_drain_and_its_end_without_wakeups(db: DbVerbs) -> None:
    recheck_finds_the_end_of_a_drain(db)


def test_drain_survives_every_registration_of_its_runner(db: DbVerbs) -> None:
    """Reconnect, offer something else, come back after a silence, after a leave; and by the last release."""

    def register(**values: Any) -> Runner:
        (registered,) = db.do(register_runners, [OFFER(**values)])
        assert isinstance(registered, Registered), registered
        return Runner(registered.runner_id, 0)

    runner = register(instance_id="a", capacity=2)
    drain(db, runner.runner_id, "moved")
    for values in ({"instance_id": "a", "capacity": 3}, {"instance_id": "a", "tags": ("gpu",)}):
        assert register(**values) == runner
        _gets_nothing(db, runner)
    fall_silent(db, runner, 999)
    assert register(instance_id="b", capacity=5) == runner
    _gets_nothing(db, runner)
    db.do(deregister_runners, [LeaveRunner(runner.runner_id, self_initiated=True)])
    db.rows("UPDATE runners SET left_at = now() - interval '2 days', last_seen = now() - interval '2 days'")
    db.do(upkeep)
    assert register(instance_id="c", capacity=6) == runner
    _gets_nothing(db, runner)
    registered_by_the_last_release(db, runner.runner_id, 7)
    _gets_nothing(db, runner)
    (shown,) = db.do(list_runners)
    assert (shown.capacity, shown.drain_reason) == (7, "moved")
    assert undrain(db, runner.runner_id).runner.capacity == 7
    assert db.claim(runner)


def _gets_nothing(db: DbVerbs, runner: Runner) -> None:
    db.start()
    assert db.claim(runner) == [], "given a run"
    assert claimed_by(db, runner.runner_id) == set()


def test_row_of_a_draining_runner_is_kept_for_thirty_days(db: DbVerbs) -> None:
    """Its machine may be back after weeks; then it is forgotten like any other."""
    runner = db.runner()
    drain(db, runner.runner_id)
    for days, kept in ((29, 1), (31, 0)):
        db.rows(
            "UPDATE runners SET (left_at, last_seen, draining_since) = (SELECT t, t, t FROM (VALUES "
            "(now() - make_interval(days => :d))) v(t))",
            d=days,
        )
        db.do(upkeep)
        assert db.count("runners") == kept


def test_drain_of_unknown_or_departed_runner_is_not_found(db: DbVerbs) -> None:
    runner, other = db.runner(), db.runner()
    db.do(deregister_runners, [LeaveRunner(runner.runner_id, self_initiated=True)])
    for draining in (True, False):
        ids = ("lnch_none", runner.runner_id, other.runner_id)
        found = db.do(set_drains, [SetDrain(runner_id, draining) for runner_id in ids])
        assert found[:2] == [NotFound("runner", "lnch_none"), NotFound("runner", runner.runner_id)]
        assert not isinstance(found[2], NotFound)


def test_drains_and_their_ends_in_one_batch_take_effect_in_order(db: DbVerbs) -> None:
    runner = db.runner()
    order = [True, True, False, True]
    items = [SetDrain(runner.runner_id, draining, str(place)) for place, draining in enumerate(order)]
    results = [result for result in db.do(set_drains, items) if not isinstance(result, NotFound)]
    assert [(one.changed, one.undone, one.runner.drain_reason) for one in results] == [
        (True, False, "0"),
        (False, False, "0"),
        (True, True, None),
        (True, False, "3"),
    ]


def test_each_change_is_in_the_audit_log_and_on_the_feed_once(db: DbVerbs) -> None:
    """Name the administrator; while authentication is off there is no name."""
    runner = db.runner()
    start = SetDrain(runner.runner_id, draining=True, reason="r", caller=BOSS)
    end = replace(start, draining=False, reason=None)
    for item in (start, start, end, end, replace(start, caller=Caller())):
        db.do(set_drains, [item])
    assert acts(db) == [
        ("runner_drained", BOSS.by, runner.runner_id, None),
        ("runner_undrained", BOSS.by, runner.runner_id, None),
        ("runner_drained", "open", runner.runner_id, None),
    ]


def test_run_that_only_draining_runners_match_does_not_fail_for_want_of_one(db: DbVerbs) -> None:
    """Let it wait as for a busy runner; the deadline begins when the runner is gone."""
    runner = db.runner()
    drain(db, runner.runner_id)
    run_id = db.start().run_id
    tick(db)
    no_match_due(db, run_id)
    tick(db)
    assert db.run(run_id).status == "pending"
    db.do(deregister_runners, [LeaveRunner(runner.runner_id, self_initiated=True)])
    tick(db)
    no_match_due(db, run_id)
    tick(db)
    assert db.run(run_id).status == "failed"


def test_explanations_name_draining_runners(web: WebInThread) -> None:
    client = web.client
    runner_id = client.register(capacity=2)
    client.register("other", tags=["gpu"], require_matching_tags=True)
    drained(client, runner_id, {"reason": "disk\x1b[31m full\nsecond line"})
    poll = client.meanwhile(client.poll, runner_id, 1)
    run_id = client.submit()["run_id"]
    found = why(client, run_id)
    assert (codes(found), found["runners"]["of_matching"]["draining"]) == (["matching_draining"], 1)
    assert "0 of 2 runners can take it: 1 takes tagged runs only, 1 matches and is draining since" in found["headline"]
    (reason,) = found["reasons"]
    assert reason["blocking"]
    assert "(disk\x1b[31m full)" in reason["text"]
    assert reason["detail"]["runner_ids"] == [runner_id]
    found = why_idle(client, runner_id)
    assert codes(found) == ["draining"]
    assert (found["capacity"], found["status"]) == (2, "online")
    assert "was drained by an administrator" in found["headline"]
    poll.result(20)
    undrained(client, runner_id)
    assert "draining" not in codes(why_idle(client, runner_id))


def test_counts_of_runners_show_draining_ones_apart(db: DbVerbs) -> None:
    """Count no free slot of theirs."""
    free, taken_out = db.runner(capacity=3), db.runner(capacity=5)
    db.start()
    drain(db, taken_out.runner_id)
    (group,) = db.do(read_cluster, []).runners
    assert (group.online, group.draining, group.stale, group.lost, group.slots) == (1, 1, 0, 0, 3)
    (queue,) = db.do(read_queues, Caller()).queues
    assert (queue.runners.online, queue.runners.draining, queue.runners.free_slots) == (1, 1, 3)
    fall_silent(db, taken_out, 130)
    (group,) = db.do(read_cluster, []).runners
    assert (group.draining, group.stale) == (0, 1)
    assert db.claim(free)


REFUSED = [
    b"[]",
    b"null",
    b'"text"',
    b"nonsense",
    b'{"reason": 5}',
    b'{"reason": ["a"]}',
    b'{"reason": "a\\u0000"}',
    b'{"reason": "a\\ud800"}',
    b'{"reason": "\xff"}',
    b'{"reason": "%s"}' % (b"x" * 201),
    b'{"reason": 1e400}',
    b'{"reason": ' + b"[" * 100_000 + b"}",
]


def test_faulty_drain_is_refused_and_changes_nothing(web: WebInThread, db: DbVerbs) -> None:
    client = web.client
    runner_id = client.register()
    path = f"/runners/{runner_id}/drain"
    for body in REFUSED:
        assert client.raw(path, body).status_code == 422, body[:40]
    assert client.raw(path, b"{" + b" " * 2_000_000 + b"}").status_code == 413
    assert db.count("runners", "draining_since IS NOT NULL") == 0
    for name in ("lnch_none", "%00", "a%ED%A0%80", "x" * 5000):
        for answer in (client.raw(f"/runners/{name}/drain", b"{}"), client.http.delete(f"/runners/{name}/drain")):
            assert answer.status_code == 404, name[:20]
            assert answer.json() == {"detail": "Runner not found"}
    assert client.raw(path, b"").json()["drain_reason"] is None
    assert client.raw(path, b'{"reason": ""}').status_code == 200
    longest = "ü" * 200
    undrained(client, runner_id)
    assert drained(client, runner_id, {"reason": longest, "unknown": 1})["drain_reason"] == longest


def test_only_admins_drain(settings: Settings, db: DbVerbs) -> None:
    """Refuse the runner itself too; it sees that it drains."""
    with web_with_auth(settings) as web:
        keys = {role: make_key(db, role, "ann") for role in Role}
        with (
            client_with(web.client.url, keys[Role.ADMIN]) as admin,
            client_with(web.client.url, keys[Role.RUNNER]) as machine,
            client_with(web.client.url, keys[Role.USER]) as user,
        ):
            runner_id = machine.register()
            path = f"/runners/{runner_id}/drain"
            for other in (machine, user):
                assert other.post(path, {}).status_code == 403
                assert other.http.delete(path).status_code == 403
            assert web.client.post(path, {}).status_code == 401
            drained(admin, runner_id, {"reason": "secret plans"})
            (shown,) = machine.get("/runners").json()["runners"]
            assert shown["draining_since"]
            run_id = user.submit()["run_id"]
            found = user.get(f"/runs/{run_id}/why")
            assert codes(found.json()) == ["matching_draining"]
            assert "secret plans" not in found.text
            for other in (machine, user):
                assert other.http.delete(path).status_code == 403
            assert machine.poll(runner_id).status_code == 204
            undrained(admin, runner_id)
            assert machine.claim(runner_id)["run_id"] == run_id


def test_unreceived_claim_of_a_draining_runner_returns_to_the_queue(db: DbVerbs) -> None:
    """Count heartbeats beside its parked poll, as for any runner."""
    runner = db.runner()
    run = claimed(db, runner)
    drain(db, runner.runner_id)
    poll = poll_request(runner)
    assert db.answer(poll)[0].parked
    assert db.second(poll)[0].parked
    for _ in range(2):
        heartbeat(db, runner)
    tick(db)
    assert db.run(run.run_id).status == "pending"
    assert db.dispatch() == {}
