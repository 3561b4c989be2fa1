"""Isolation of owners: every endpoint, every filter, the feed, lists, waits, keys and counts."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from app.auth.permissions import PERMISSIONS
from models.core.callers import Role
from models.feed.sequence import read_head, sequence_feed
from runtime.settings import Settings
from testkit.feed_follower import open_stream
from tests.support.callers import bearer, make_key, web_with_auth
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all
from tests.support.tenants import CALLS, MARK, OTHERS, Tenants, answers_as_for_unknown, tenants
from tests.support.web import PROMPT, WebInThread, served

TABLES = ("sessions", "runs", "events", "child_results", "stop_commands", "runners")


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with web_with_auth(settings) as web:
        yield web


@pytest.fixture
def callers(web: WebInThread, db: DbVerbs) -> Iterator[Tenants]:
    with tenants(web.client.url, db) as callers:
        # An event that gets its position later would look like a change.
        number_all(db)
        yield callers


def contents(db: DbVerbs) -> dict[str, Any]:
    """Return all rows without heartbeat times and feed positions, which change meanwhile."""
    heartbeats = " - 'last_seen' - 'feed_pos'"
    return {
        table: [row.one for row in db.rows(f"SELECT to_jsonb(t.*){heartbeats} AS one FROM {table} t ORDER BY 1")]
        for table in TABLES
    }


def test_matrix_has_every_endpoint() -> None:
    """Require for each endpoint how it is called, or that it names no resource."""
    assert set(CALLS) | OTHERS == set(PERMISSIONS)
    assert not set(CALLS) & OTHERS


def test_other_owners_get_answer_for_unknown_id(callers: Tenants, db: DbVerbs) -> None:
    """Make every call as another user and another runner: nothing changes."""
    before = contents(db)
    for name in CALLS:
        for caller, role in ((callers.ann, Role.USER), (callers.other, Role.RUNNER)):
            if PERMISSIONS[name].allows(role):
                for names in (callers.bobs, callers.child):
                    answers_as_for_unknown(caller, name, names)
        assert contents(db) == before, name


def test_lists_show_each_owner_its_own(callers: Tenants) -> None:
    """Use every filter, with and without pages; an admin sees all, and Bob everything owned by "bob"."""
    ann, bob = callers.ann, callers.bob
    anns = {ann.submit(labels={"team": "ann"})["run_id"] for _ in range(3)}
    for query in (
        {},
        {"limit": 100},
        {"status": "pending"},
        {"status": "completed"},
        {"label": f"team={MARK}"},
        {"agent_name": MARK},
        {"runner_id": callers.bobs.runner},
        {"session_id": callers.bobs.session},
    ):
        answer = ann.get("/runs", **query)
        assert MARK not in answer.text
        assert {run["run_id"] for run in answer.json()["runs"]} <= anns
        sessions = ann.get("/sessions", **query)
        assert MARK not in sessions.text
        assert len(sessions.json()["sessions"]) <= 3
    assert {run["run_id"] for run in ann.get("/runs").json()["runs"]} == anns
    assert len(bob.get("/runs").json()["runs"]) == 3
    assert len(callers.admin.get("/runs").json()["runs"]) == 6
    assert len(callers.admin.get("/sessions").json()["sessions"]) == 6


@pytest.mark.parametrize("noun", ["runs", "sessions"])
def test_cursor_of_another_owner_gives_no_access(callers: Tenants, noun: str) -> None:
    ann = callers.ann
    for _ in range(3):
        ann.submit()
    cursor = callers.bob.get(f"/{noun}", limit=1).json()["next_cursor"]
    page = ann.get(f"/{noun}", limit=10, cursor=cursor)
    assert MARK not in page.text
    seen: list[dict[str, Any]] = []
    after: dict[str, Any] = {}
    while True:
        answer = ann.get(f"/{noun}", limit=2, **after)
        assert MARK not in answer.text
        seen += answer.json()[noun]
        if not answer.json().get("next_cursor"):
            break
        after = {"cursor": answer.json()["next_cursor"]}
    assert len(seen) == 3


def test_idempotency_keys_are_separate_per_owner(callers: Tenants) -> None:
    """Submit the same key and body twice: two runs. A runner with a user's name is not that user."""
    body = {"type": "start_session", "parameters": PROMPT}
    anns, bobs = (caller.post("/runs", body, **{"Idempotency-Key": "k"}) for caller in (callers.ann, callers.bob))
    assert (anns.status_code, bobs.status_code) == (201, 201)
    assert anns.json()["run_id"] != bobs.json()["run_id"]
    again = callers.ann.post("/runs", body, **{"Idempotency-Key": "k"})
    assert (again.status_code, again.json()) == (200, anns.json())
    other = callers.ann.post("/runs", body | {"priority": 1}, **{"Idempotency-Key": "k"})
    assert other.status_code == 409


def test_other_owner_learns_only_that_session_id_is_taken(callers: Tenants) -> None:
    """Answer 409 as for one's own, since ids share one namespace (docs/security.md); nothing changes."""
    body = {"type": "start_session", "parameters": PROMPT}
    refused = callers.ann.post("/runs", body | {"session_id": callers.bobs.session})
    assert refused.status_code == 409
    assert refused.json() == {"detail": f"Session '{callers.bobs.session}' already exists"}


def test_runners_are_visible_to_themselves_and_admins_only(callers: Tenants) -> None:
    """Answer 403 to users; a runner sees its own registration."""
    assert callers.ann.get("/runners").status_code == 403
    assert callers.other.get("/runners").json() == {"runners": []}
    assert MARK in callers.machine.get("/runners").text
    assert MARK in callers.admin.get("/runners").text


def test_registration_of_another_owner_cannot_be_taken(callers: Tenants) -> None:
    """Guess the four properties: they are another runner then, and the first one notices nothing."""
    body = {"hostname": MARK, "project_dir": "/p", "executor_profile": "e", "executor": {"type": "autonomous"}}
    registered = callers.other.post("/runner/register", body | {"instance_id": "mine"})
    assert registered.status_code == 200
    assert registered.json()["runner_id"] != callers.bobs.runner
    beat = callers.machine.post("/runner/heartbeat", {"runner_id": callers.bobs.runner})
    assert beat.status_code == 200
    assert callers.ann.post("/runner/register", body).status_code == 403


@pytest.mark.parametrize("query", ["", "created_by", "session_id", "run_id", "types"])
def test_feed_shows_each_owner_its_own(callers: Tenants, db: DbVerbs, query: str) -> None:
    """Read from the first position, and resumed at each, with each filter.

    No byte of Bob's or of a deleted session arrives.
    """
    bobs = callers.bobs
    filters = {
        "": {},
        "created_by": {"created_by": "bob"},
        "session_id": {"session_id": bobs.session},
        "run_id": {"run_id": bobs.run, "types": "event,run_updated"},
        "types": {"types": "session_created,session_updated,session_deleted,event,run_failed,run_updated"},
    }[query]
    own = callers.ann.submit(session_id="anns")
    stopped = callers.bob.post(f"/sessions/waiting-{MARK}/stop")
    assert stopped.json()["status"] == "stopped"
    assert callers.bob.http.delete(f"/sessions/waiting-{MARK}").status_code == 200
    db.do(sequence_feed)
    head = db.do(read_head)
    shown = bearer(callers.ann.token)
    for position in (0, 1, head.position // 2, head.position):
        resume = {"last_event_id": f"v1.{head.epoch}.{position}"}
        with open_stream(callers.ann.url, filters | resume, **shown) as stream:
            # Ann's events pass where the filter allows; the position of the heartbeat shows that all before was
            # considered.
            data = "".join(message.data for message in take_up_to(stream, head.position))
            assert MARK not in data
            if not query and position == 0:
                assert own["session_id"] in data
    with open_stream(callers.ann.url, filters, **shown) as stream:
        init = stream.until("init")[-1]
        assert MARK not in init.data
        assert len(json.loads(init.data)["sessions"]) <= 1


def take_up_to(stream: Any, position: int) -> list[Any]:
    """Return all messages until the stream has passed this position."""
    got = []
    for message in stream.messages(within=30):
        got.append(message)
        if message.id is not None and message.position >= position:
            return got
    raise AssertionError(f"ended before {position}: {got}")


def test_runner_works_in_trees_below_its_sessions(callers: Tenants) -> None:
    """Read, resume, stop and delete there; children belong to the owner of the tree."""
    machine, bobs, child = callers.machine, callers.bobs, callers.child
    assert machine.get(f"/sessions/{child.session}").json()["session"]["owner"] == "bob"
    assert machine.get(f"/runs/{child.run}").status_code == 200
    assert machine.get(f"/sessions/{bobs.session}/result").json()["result_text"] == MARK
    assert {session["session_id"] for session in machine.get("/sessions").json()["sessions"]} == {
        bobs.session,
        child.session,
    }
    grandchild = machine.submit(parent_session_id=child.session)
    assert callers.bob.get(f"/sessions/{grandchild['session_id']}").json()["session"]["owner"] == "bob"
    assert machine.post(f"/sessions/{grandchild['session_id']}/stop").json()["status"] == "stopped"
    assert machine.http.delete(f"/sessions/{grandchild['session_id']}").status_code == 200
    assert machine.post("/runs", {"type": "start_session", "parameters": PROMPT}).status_code == 403
    assert machine.get(f"/sessions/waiting-{MARK}").status_code == 404


def test_runner_that_lost_session_has_no_access(callers: Tenants, db: DbVerbs) -> None:
    """Compare the newest claim of the session."""
    bobs, other = callers.bobs, callers.other
    assert other.get(f"/sessions/{bobs.session}").status_code == 404
    assert callers.machine.http.delete(f"/runners/{bobs.runner}", params={"self": "true"}).status_code == 200
    assert callers.machine.get(f"/sessions/{bobs.session}").status_code == 200
    db.rows("UPDATE sessions SET hostname = NULL, executor_profile = NULL")
    callers.bob.resume(bobs.session, priority=100)
    runner_id = other.register("elsewhere")
    assert other.claim(runner_id)["session_id"] == bobs.session
    assert other.get(f"/sessions/{bobs.session}").status_code == 200
    assert callers.machine.get(f"/sessions/{bobs.session}").status_code == 404


def test_registration_made_without_authentication_serves_any_runner_key(settings: Settings, db: DbVerbs) -> None:
    """Lose no run by turning authentication on; the next registration has an owner."""
    with served(settings) as web:
        runner_id = web.client.register()
        web.client.submit()
    with served(settings.model_copy(update={"auth": True})) as web:
        shown = bearer(make_key(db, Role.RUNNER, "machine"))
        answer = web.client.http.get("/runner/runs", params={"runner_id": runner_id, "wait": 20}, headers=shown)
        assert answer.json()["run"]["status"] == "claimed"
