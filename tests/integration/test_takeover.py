"""Identities belong to their owner: the same four values with another key give no access to what they executed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from app.auth.permissions import PERMISSIONS
from models.core.callers import Role
from models.expiry.cleanup import upkeep
from models.expiry.expire import expire
from runtime.settings import Settings
from tests.support.callers import client_with, make_key, web_with_auth
from tests.support.db_verbs import DbVerbs, poll_request
from tests.support.tenants import CALLS, MARK, Names, answers_as_for_unknown, good
from tests.support.web import WebClient, WebInThread, served

LEAVE = "DELETE /runners/{runner_id}"
ABOUT_RUNNERS = {"GET /runner/runs", "POST /runner/heartbeat", "GET /runners/{runner_id}/why-idle", LEAVE}
# Give both runners the same four values.
BOX: dict[str, Any] = {"instance_id": "first"}
# Try reads, forgeries, deletes and reports: every call that names a session or a run, not those about a runner alone.
ATTACKS = tuple(name for name in CALLS if name not in ABOUT_RUNNERS and PERMISSIONS[name].allows(Role.RUNNER))


@dataclass(frozen=True)
class Rivals:
    """``machine`` ran Bob's session and is gone; ``mallory`` has a runner key of another owner."""

    bob: WebClient
    machine: WebClient
    mallory: WebClient
    session: str
    run: str
    runner: str

    def attack(self, names: tuple[str, ...] = ATTACKS) -> None:
        """Register the same four values with the other key, then try everything: each answer is that for an
        unknown id.
        """
        mine = self.mallory.register(MARK, instance_id="second")
        for name in names:
            theirs = Names(self.session, self.run, mine)
            answers_as_for_unknown(self.mallory, name, theirs, Names("never-was", "run_never_was", mine))


@contextmanager
def rivals(url: str, db: DbVerbs) -> Iterator[Rivals]:
    """Finish Bob's session, with an event, a result and a binding of the runner that executed it."""
    roles = {"bob": Role.USER, "machine": Role.RUNNER, "mallory": Role.RUNNER}
    with ExitStack() as stack:
        who = {name: stack.enter_context(client_with(url, make_key(db, role, name))) for name, role in roles.items()}
        runner_id = who["machine"].register(MARK, **BOX)
        who["bob"].submit(session_id="bobs", parameters={"prompt": MARK}, labels={"team": MARK})
        run = who["machine"].claim(runner_id)
        good(who["machine"].report(run, runner_id, "started"))
        where = {"executor_session_id": MARK, "hostname": MARK, "executor_profile": "e"}
        good(who["machine"].post("/sessions/bobs/bind", where))
        result = {"event_type": "result", "session_id": "bobs", "timestamp": "t", "result_text": MARK}
        good(who["machine"].post("/sessions/bobs/events", result))
        good(who["machine"].report(run, runner_id, "completed"))
        yield Rivals(**who, session="bobs", run=run["run_id"], runner=runner_id)


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with web_with_auth(settings) as web:
        yield web


@pytest.fixture
def both(web: WebInThread, db: DbVerbs) -> Iterator[Rivals]:
    with rivals(web.client.url, db) as both:
        yield both


def leave(both: Rivals, db: DbVerbs) -> None:
    good(both.machine.http.delete(f"/runners/{both.runner}", params={"self": "true"}))


def fall_silent(both: Rivals, db: DbVerbs) -> None:
    db.rows("UPDATE runners SET last_seen = now() - interval '10 minutes', lost_at = now()")


def be_forgotten(both: Rivals, db: DbVerbs) -> None:
    leave(both, db)
    db.rows("UPDATE runners SET left_at = now() - interval '2 hours'")
    db.do(upkeep)
    assert db.count("runners") == 0


def stay(both: Rivals, db: DbVerbs) -> None:
    """Keep the runner online, with an identity that another owner guesses."""


WAYS = (leave, fall_silent, be_forgotten, stay)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_same_four_values_with_another_key_give_no_access(both: Rivals, db: DbVerbs, way: object) -> None:
    """Read, forge, report and delete: each is answered as for an unknown id, and nothing changes."""
    assert callable(way)
    way(both, db)
    both.attack()
    kept = both.bob.get("/sessions/bobs/result").json()
    assert kept["result_text"] == MARK
    assert len(both.bob.get("/sessions/bobs/events").json()["events"]) == 3


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_claim_of_unknown_subject_stays_with_its_owner(both: Rivals, db: DbVerbs, way: object) -> None:
    """Use a run claimed by the previous release, without a subject: only its owner and admins have access."""
    db.rows("UPDATE runs SET claimed_by = NULL, claimed_by_registration = NULL")
    assert callable(way)
    way(both, db)
    both.attack()


def test_process_that_claimed_before_upgrade_goes_on(both: Rivals, db: DbVerbs) -> None:
    """Compare its registration number, which no other process ever gets."""
    run = both.machine.started(both.runner, **under(both))
    db.rows("UPDATE runs SET claimed_by = NULL, claimed_by_registration = NULL")
    event = {"event_type": "message", "session_id": run["session_id"], "timestamp": "t", "content": "still here"}
    good(both.machine.post(f"/sessions/{run['session_id']}/events", event))
    good(both.machine.report(run, both.runner, "completed"))


def under(both: Rivals) -> dict[str, str]:
    """Return a child of the session that the runner held last; it may start nothing outside of that tree."""
    return {"parent_session_id": both.session}


def test_subject_left_by_previous_release_is_ignored(both: Rivals, db: DbVerbs) -> None:
    """Claim and release as the previous release does, without touching the stored subject."""
    run = both.machine.started(both.runner, **under(both))
    other = both.mallory.register(MARK, instance_id="second")
    (number,) = db.rows("SELECT registration FROM runners WHERE runner_id = :r", r=other)
    db.rows(
        "UPDATE runs SET runner_id = :r, registration = :n WHERE run_id = :run",
        r=other,
        n=number.registration,
        run=run["run_id"],
    )
    assert both.mallory.get(f"/runs/{run['run_id']}").status_code == 200
    good(both.mallory.report(run, other, "completed"))


def test_departed_runner_keeps_access_to_its_sessions(both: Rivals, db: DbVerbs) -> None:
    """Keep it while it is away, and under whatever registration it returns."""
    leave(both, db)
    assert both.machine.get("/sessions/bobs").status_code == 200
    assert both.machine.register(MARK, instance_id="later") == both.runner
    assert both.machine.get("/sessions/bobs/result").json()["result_text"] == MARK
    assert both.machine.get(f"/runs/{both.run}").status_code == 200


def test_owners_have_separate_runners_of_same_four_values(web: WebInThread, db: DbVerbs) -> None:
    """Register in either order: neither blocks the other, each id stays, and each works."""
    url = web.client.url
    with (
        client_with(url, make_key(db, Role.RUNNER, "rival")) as rival,
        client_with(url, make_key(db, Role.RUNNER, "machine")) as machine,
        client_with(url, make_key(db, Role.USER, "bob")) as bob,
    ):
        first, second = rival.register(MARK), machine.register(MARK)
        assert first != second
        assert (
            machine.post(
                "/runner/register",
                {"hostname": MARK, "project_dir": "/p", "executor_profile": "e", "executor": {"type": "autonomous"}},
            ).status_code
            == 409
        )
        for client, runner_id in ((rival, first), (machine, second)):
            bob.submit()
            run = client.claim(runner_id)
            good(client.report(run, runner_id, "started"))
            good(client.post("/runner/heartbeat", {"runner_id": runner_id, "holding": [run["run_id"]]}))
            good(client.report(run, runner_id, "completed"))
        assert rival.poll(second).status_code == machine.poll(first).status_code == 401
        good(rival.http.delete(f"/runners/{first}", params={"self": "true"}))
        good(machine.http.delete(f"/runners/{second}", params={"self": "true"}))
        assert machine.register(MARK) == second
        assert rival.register(MARK) == first


def test_registration_without_owner_blocks_no_owner(settings: Settings, db: DbVerbs) -> None:
    """Ignore it, since any caller may have made it and keep it alive."""
    with served(settings) as web:
        open_id = web.client.register(MARK)
    with web_with_auth(settings) as web, client_with(web.client.url, make_key(db, Role.RUNNER, "machine")) as machine:
        assert machine.register(MARK) != open_id


def test_runner_that_lost_run_gets_409_and_others_404(both: Rivals, db: DbVerbs) -> None:
    """Try every way of reporting."""
    run = both.machine.started(both.runner, max_attempts=2, **under(both))
    db.rows("UPDATE runners SET last_seen = now() - interval '10 minutes'")
    db.do(expire)
    assert db.run(run["run_id"]).former_holders == ["machine"]
    stale = {"error": "stale_claim", "status": "pending"}
    for token in (run["claim_token"], None):
        refused = both.machine.report(run, both.runner, "completed", claim_token=token)
        assert refused.status_code == 409
        assert refused.json()["detail"].items() >= stale.items()
    elsewhere = both.mallory.register("elsewhere")
    for token in (run["claim_token"], None):
        for run_id in (run["run_id"], "run_never_was"):
            answer = both.mallory.report({"run_id": run_id}, elsewhere, "completed", claim_token=token)
            assert (answer.status_code, answer.json()) == (404, {"detail": "Run not found"})
    other = both.mallory.claim(elsewhere)
    assert other["run_id"] == run["run_id"]
    good(both.mallory.report(other, elsewhere, "started"))
    assert both.machine.report(run, both.runner, "completed").status_code == 409
    good(both.mallory.report(other, elsewhere, "completed"))


def test_dispatched_claim_stores_subject_of_poll(db: DbVerbs) -> None:
    """Take the owner of the registration or, if it has none, the subject of the parked poll."""
    owned, open_one = db.runner(), db.runner()
    db.rows("UPDATE runners SET owner = 'machine' WHERE runner_id = :r", r=owned.runner_id)
    for runner, subject in ((owned, None), (open_one, "mallory"), (open_one, None)):
        poll = replace(poll_request(runner), subject=subject)
        assert [answer.parked for answer in db.answer(poll)] == [True]
        started = db.start()
        assert db.dispatch() == {poll.poll_id: [started.run_id]}
        row = db.run(started.run_id)
        assert row.claimed_by == ("machine" if runner is owned else subject)
        assert row.claimed_by_registration == runner.registration
