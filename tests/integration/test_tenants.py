"""What is one owner's is nobody else's: every endpoint, every filter, the feed, lists, waits, keys and counts."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from app.auth.permissions import PERMISSIONS
from models.core.callers import Role
from models.feed.sequence import read_head, sequence_feed
from runtime.settings import Settings
from tests.support.callers import asking, bearer, make_key
from tests.support.db_verbs import DbVerbs
from tests.support.feed_follower import following
from tests.support.tenants import CALLS, MARK, OTHERS, Tenants, as_if_it_never_was, tenants
from tests.support.web import PROMPT, WebInThread, served

TABLES = ("sessions", "runs", "events", "child_results", "stop_commands", "runners")


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with asking(settings) as web:
        yield web


@pytest.fixture
def all_of_them(web: WebInThread, db: DbVerbs) -> Iterator[Tenants]:
    with tenants(web.client.url, db) as everybody:
        yield everybody


def contents(db: DbVerbs) -> dict[str, Any]:
    """All rows but for signs of life and the positions that events are given meanwhile."""
    heartbeats = " - 'last_seen' - 'feed_pos'"
    return {
        table: [row.one for row in db.rows(f"SELECT to_jsonb(t.*){heartbeats} AS one FROM {table} t ORDER BY 1")]
        for table in TABLES
    }


def test_the_matrix_has_every_endpoint() -> None:
    """A new one must say how it is tried, or that it names nothing of anybody."""
    assert set(CALLS) | OTHERS == set(PERMISSIONS)
    assert not set(CALLS) & OTHERS


@pytest.mark.parametrize("name", CALLS)
def test_to_a_stranger_it_is_as_if_it_never_was(all_of_them: Tenants, db: DbVerbs, name: str) -> None:
    """Another user, and another runner: the same answer as for an id that nobody ever had, and nothing changes."""
    before = contents(db)
    for who, role in ((all_of_them.ann, Role.USER), (all_of_them.other, Role.RUNNER)):
        if PERMISSIONS[name].allows(role):
            for names in (all_of_them.bobs, all_of_them.child):
                as_if_it_never_was(who, name, names)
    assert contents(db) == before


def test_lists_show_each_owner_its_own(all_of_them: Tenants) -> None:
    """With every filter, with and without pages; an admin sees all, and Bob all that is his."""
    ann, bob = all_of_them.ann, all_of_them.bob
    hers = {ann.submit(labels={"team": "ann"})["run_id"] for _ in range(3)}
    for query in (
        {},
        {"limit": 100},
        {"status": "pending"},
        {"status": "completed"},
        {"label": f"team={MARK}"},
        {"agent_name": MARK},
        {"runner_id": all_of_them.bobs.runner},
        {"session_id": all_of_them.bobs.session},
    ):
        answer = ann.get("/runs", **query)
        assert MARK not in answer.text
        assert {run["run_id"] for run in answer.json()["runs"]} <= hers
        sessions = ann.get("/sessions", **query)
        assert MARK not in sessions.text
        assert len(sessions.json()["sessions"]) <= 3
    assert {run["run_id"] for run in ann.get("/runs").json()["runs"]} == hers
    assert len(bob.get("/runs").json()["runs"]) == 3
    assert len(all_of_them.admin.get("/runs").json()["runs"]) == 6
    assert len(all_of_them.admin.get("/sessions").json()["sessions"]) == 6


@pytest.mark.parametrize("noun", ["runs", "sessions"])
def test_a_cursor_of_another_owner_opens_nothing(all_of_them: Tenants, noun: str) -> None:
    """It is a place in an order, not a right."""
    ann = all_of_them.ann
    for _ in range(3):
        ann.submit()
    cursor = all_of_them.bob.get(f"/{noun}", limit=1).json()["next_cursor"]
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


def test_idempotency_keys_are_each_owners_own(all_of_them: Tenants) -> None:
    """The same key, the same body: two runs; and a runner of a user's name is not that user."""
    body = {"type": "start_session", "parameters": PROMPT}
    hers, his = (who.post("/runs", body, **{"Idempotency-Key": "k"}) for who in (all_of_them.ann, all_of_them.bob))
    assert (hers.status_code, his.status_code) == (201, 201)
    assert hers.json()["run_id"] != his.json()["run_id"]
    again = all_of_them.ann.post("/runs", body, **{"Idempotency-Key": "k"})
    assert (again.status_code, again.json()) == (200, hers.json())
    other = all_of_them.ann.post("/runs", body | {"priority": 1}, **{"Idempotency-Key": "k"})
    assert other.status_code == 409


def test_a_taken_session_id_is_all_that_a_stranger_learns(all_of_them: Tenants) -> None:
    """Names are one space: 409 in the words for one's own (docs/security.md says so), and nothing of it changes."""
    body = {"type": "start_session", "parameters": PROMPT}
    refused = all_of_them.ann.post("/runs", body | {"session_id": all_of_them.bobs.session})
    assert refused.status_code == 409
    assert refused.json() == {"detail": f"Session '{all_of_them.bobs.session}' already exists"}


def test_runners_are_shown_to_nobody_but_themselves_and_admins(all_of_them: Tenants) -> None:
    """403 for users; a runner sees its own registration."""
    assert all_of_them.ann.get("/runners").status_code == 403
    assert all_of_them.other.get("/runners").json() == {"runners": []}
    assert MARK in all_of_them.machine.get("/runners").text
    assert MARK in all_of_them.admin.get("/runners").text


def test_another_ones_registration_cannot_be_taken(all_of_them: Tenants) -> None:
    """The four properties may be guessed; they are another runner then, and the first one does not notice."""
    body = {"hostname": MARK, "project_dir": "/p", "executor_profile": "e", "executor": {"type": "autonomous"}}
    mine = all_of_them.other.post("/runner/register", body | {"instance_id": "mine"})
    assert mine.status_code == 200
    assert mine.json()["runner_id"] != all_of_them.bobs.runner
    beat = all_of_them.machine.post("/runner/heartbeat", {"runner_id": all_of_them.bobs.runner})
    assert beat.status_code == 200
    assert all_of_them.ann.post("/runner/register", body).status_code == 403


@pytest.mark.parametrize("query", ["", "created_by", "session_id", "run_id", "types"])
def test_the_feed_tells_each_owner_its_own(all_of_them: Tenants, db: DbVerbs, query: str) -> None:
    """From the first position on, resumed at each, with each filter: not a byte of Bob's; a deleted session neither."""
    bobs = all_of_them.bobs
    filters = {
        "": {},
        "created_by": {"created_by": "bob"},
        "session_id": {"session_id": bobs.session},
        "run_id": {"run_id": bobs.run, "types": "event,run_updated"},
        "types": {"types": "session_created,session_updated,session_deleted,event,run_failed,run_updated"},
    }[query]
    mine = all_of_them.ann.submit(session_id="anns")
    stopped = all_of_them.bob.post(f"/sessions/waiting-{MARK}/stop")
    assert stopped.json()["status"] == "stopped"
    assert all_of_them.bob.http.delete(f"/sessions/waiting-{MARK}").status_code == 200
    db.do(sequence_feed)
    head = db.do(read_head)
    shown = bearer(all_of_them.ann.token)
    for position in (0, 1, head.position // 2, head.position):
        resume = {"last_event_id": f"v1.{head.epoch}.{position}"}
        with following(all_of_them.ann.url, filters | resume, **shown) as stream:
            # Hers come through where the filter lets them; the heartbeat's place says that all before was looked at.
            data = "".join(message.data for message in take_up_to(stream, head.position))
            assert MARK not in data
            if not query and position == 0:
                assert mine["session_id"] in data
    with following(all_of_them.ann.url, filters, **shown) as stream:
        init = stream.until("init")[-1]
        assert MARK not in init.data
        assert len(json.loads(init.data)["sessions"]) <= 1


def take_up_to(stream: Any, position: int) -> list[Any]:
    """All messages until one says that the stream has passed this position."""
    got = []
    for message in stream.messages(within=20):
        got.append(message)
        if message.id is not None and message.position >= position:
            return got
    raise AssertionError(f"ended before {position}: {got}")


def test_a_runner_works_in_the_trees_under_what_it_holds(all_of_them: Tenants) -> None:
    """It reads, resumes, stops and deletes there; children belong to the owner of the tree."""
    machine, bobs, child = all_of_them.machine, all_of_them.bobs, all_of_them.child
    assert machine.get(f"/sessions/{child.session}").json()["session"]["owner"] == "bob"
    assert machine.get(f"/runs/{child.run}").status_code == 200
    assert machine.get(f"/sessions/{bobs.session}/result").json()["result_text"] == MARK
    assert {one["session_id"] for one in machine.get("/sessions").json()["sessions"]} == {bobs.session, child.session}
    grandchild = machine.submit(parent_session_id=child.session)
    assert all_of_them.bob.get(f"/sessions/{grandchild['session_id']}").json()["session"]["owner"] == "bob"
    assert machine.post(f"/sessions/{grandchild['session_id']}/stop").json()["status"] == "stopped"
    assert machine.http.delete(f"/sessions/{grandchild['session_id']}").status_code == 200
    assert machine.post("/runs", {"type": "start_session", "parameters": PROMPT}).status_code == 403
    assert machine.get(f"/sessions/waiting-{MARK}").status_code == 404


def test_a_runner_that_lost_a_session_to_another_one_is_a_stranger_to_it(all_of_them: Tenants, db: DbVerbs) -> None:
    """Who held it last is who claimed its newest run."""
    bobs, other = all_of_them.bobs, all_of_them.other
    assert other.get(f"/sessions/{bobs.session}").status_code == 404
    assert all_of_them.machine.http.delete(f"/runners/{bobs.runner}", params={"self": "true"}).status_code == 200
    assert all_of_them.machine.get(f"/sessions/{bobs.session}").status_code == 200
    db.rows("UPDATE sessions SET hostname = NULL, executor_profile = NULL")
    all_of_them.bob.resume(bobs.session, priority=100)
    runner_id = other.register("elsewhere")
    assert other.claim(runner_id)["session_id"] == bobs.session
    assert other.get(f"/sessions/{bobs.session}").status_code == 200
    assert all_of_them.machine.get(f"/sessions/{bobs.session}").status_code == 404


def test_a_registration_made_while_everybody_was_an_admin_is_any_runners(settings: Settings, db: DbVerbs) -> None:
    """So that turning authentication on costs no run; the next registration has an owner."""
    with served(settings) as web:
        runner_id = web.client.register()
        web.client.submit()
    with served(settings.model_copy(update={"auth": True})) as web:
        shown = bearer(make_key(db, Role.RUNNER, "machine"))
        answer = web.client.http.get("/runner/runs", params={"runner_id": runner_id, "wait": 20}, headers=shown)
        assert answer.json()["run"]["status"] == "claimed"
