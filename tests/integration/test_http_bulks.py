"""`POST /bulk` over HTTP: dry run, token, progress and stop; hostile bodies; limits and outages."""

from collections.abc import Iterator
from typing import Any

import pytest

from models.core.callers import Caller, Role
from runtime.settings import Settings
from testkit.ports import own_port
from testkit.waiting import eventually
from tests.support.answer_models import check_fields
from tests.support.bulks import ledger, work_all
from tests.support.callers import client_with, make_key, web_with_auth
from tests.support.db_verbs import DbVerbs
from tests.support.in_process_worker import running_worker
from tests.support.reports import finished
from tests.support.web import WebClient, WebInThread, served

PENDING: dict[str, Any] = {"action": "stop", "filter": {"status": "pending"}, "dry_run": True}


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings) as web:
        yield web


def previewed(client: WebClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/bulk", {"dry_run": True, **body})
    assert answer.status_code == 200, answer.text
    check_fields("POST /bulk", 200, answer.json())
    found: dict[str, Any] = answer.json()
    return found


def started(client: WebClient, token: str) -> str:
    answer = client.post("/bulk", {"token": token})
    assert answer.status_code == 202, answer.text
    check_fields("POST /bulk", 202, answer.json())
    return str(answer.json()["bulk_id"])


def shown(client: WebClient, bulk_id: str) -> dict[str, Any]:
    answer = client.get(f"/bulk/{bulk_id}")
    assert answer.status_code == 200, answer.text
    check_fields("GET /bulk/{bulk_id}", 200, answer.json())
    found: dict[str, Any] = answer.json()
    return found


def test_bulk_runs_from_dry_run_to_end(settings: Settings, web: WebInThread) -> None:
    """Let a worker do it after one wake-up; the list shows it."""
    client = web.client
    run_ids = {client.submit(labels={"team": "sky"})["run_id"] for _ in range(3)}
    client.submit()
    with running_worker(settings):
        preview = previewed(client, action="stop", filter={"label": ["team=sky"], "status": ["pending", "running"]})
        assert (preview["matches"], preview["exact"], preview["searched_until"]) == (3, True, None)
        assert {run["run_id"] for run in preview["sample"]} == run_ids
        bulk_id = started(client, preview["token"])
        assert started(client, preview["token"]) == bulk_id
        eventually(lambda: shown(client, bulk_id)["state"] == "completed", what="the end of the bulk")
    bulk = shown(client, bulk_id)
    assert (bulk["total"], bulk["done"], bulk["changed"], bulk["skipped"], bulk["errors"]) == (3, 3, 3, {}, [])
    assert bulk["filter"] == {"label": ["team=sky"], "status": ["pending", "running"]}
    assert {client.status(run_id) for run_id in run_ids} == {"stopped"}
    page = client.get("/bulk").json()
    check_fields("GET /bulk", 200, page)
    assert [each["bulk_id"] for each in page["bulks"]] == [bulk_id]
    assert len(client.get("/runs", status="pending").json()["runs"]) == 1


def test_worker_finds_bulk_without_redis(settings: Settings, db: DbVerbs) -> None:
    """Only delay it while Redis is away: wake-ups are hints."""
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{own_port()}/0"})
    with served(away) as web:
        run_id = web.client.submit()["run_id"]
        bulk_id = started(web.client, previewed(web.client, action="stop", run_ids=[run_id])["token"])
        work_all(db)
        assert shown(web.client, bulk_id)["state"] == "completed"


def test_replay_of_all_that_failed(web: WebInThread, db: DbVerbs) -> None:
    """Validate the changes as those of one replay."""
    client = web.client
    runner = client.register()
    failed = []
    for _ in range(3):
        run = client.started(runner)
        client.report(run, runner, "failed", error="boom")
        failed.append(run["run_id"])
    body = {"action": "replay", "filter": {"status": "failed"}}
    bad = client.post("/bulk", {**body, "dry_run": True, "changes": {"priority": 1000}})
    assert bad.status_code == 422
    assert bad.json()["detail"][0]["loc"] == ["body", "changes", "priority"]
    preview = previewed(client, **body, changes={"priority": 5, "additional_demands": {"tags": ["big"]}})
    bulk_id = started(client, preview["token"])
    work_all(db)
    assert shown(client, bulk_id)["changed"] == 3
    assert ledger(db) == dict.fromkeys(failed, 1)
    (row, *_) = db.rows("SELECT priority, demands FROM runs WHERE replay_of IS NOT NULL")
    assert (row.priority, row.demands["tags"]) == (5, ["big"])


def test_stop_of_bulk_answers_with_its_last_state(web: WebInThread, db: DbVerbs) -> None:
    client = web.client
    bulk_id = started(client, previewed(client, action="stop", run_ids=[client.submit()["run_id"]])["token"])
    for _ in range(2):
        answer = client.post(f"/bulk/{bulk_id}/stop")
        assert answer.status_code == 200, answer.text
        check_fields("POST /bulk/{bulk_id}/stop", 200, answer.json())
        assert (answer.json()["state"], answer.json()["done"]) == ("stopped", 0)
    work_all(db)
    assert db.count("runs", "status = 'pending'") == 1


def test_unknown_bulk_is_404(web: WebInThread) -> None:
    for bulk_id in ("blk_x", "%00", "x" * 300):
        assert web.client.get(f"/bulk/{bulk_id}").status_code == 404
        assert web.client.post(f"/bulk/{bulk_id}/stop").status_code == 404


def test_dry_run_is_no_bulk_yet(web: WebInThread) -> None:
    token = previewed(web.client, action="stop", filter={"status": "pending"})["token"]
    assert web.client.get(f"/bulk/{token.replace('blt_', 'blk_')}").status_code == 404
    assert web.client.get("/bulk").json() == {"bulks": []}


BAD: list[Any] = [
    {},
    [],
    None,
    "stop",
    PENDING | {"action": "restart"},
    PENDING | {"action": None},
    PENDING | {"dry_run": False},
    {"action": "stop", "filter": {"status": "pending"}},
    {"action": "stop", "dry_run": True},
    PENDING | {"filter": {}},
    PENDING | {"run_ids": ["run_x"]},
    PENDING | {"filter": None, "run_ids": []},
    PENDING | {"filter": None, "run_ids": ["run_x"] * 1001},
    PENDING | {"filter": None, "run_ids": ["x" * 300]},
    PENDING | {"filter": None, "run_ids": ["run_\x00"]},
    PENDING | {"filter": None, "run_ids": [1]},
    PENDING | {"limit": 0},
    PENDING | {"limit": 50_001},
    PENDING | {"limit": 10**30},
    PENDING | {"limit": "5"},
    PENDING | {"changes": {"priority": 1}},
    PENDING | {"action": "delete", "changes": {}},
    PENDING | {"action": "replay", "changes": {"session_id": "mine"}},
    PENDING | {"action": "replay", "changes": {"parameters": None}},
    PENDING | {"filter": {"status": "pen\x00ding"}},
    PENDING | {"filter": {"agent_name": "\ud800"}},
    PENDING | {"filter": {"unknown": "x"}},
    PENDING | {"filter": {"limit": 5}},
    PENDING | {"filter": {"cursor": "x"}},
    PENDING | {"filter": {"fields": "summary"}},
    PENDING | {"filter": {"status": []}},
    PENDING | {"filter": {"status": ["pending"] * 1001}},
    PENDING | {"filter": {"status": ""}},
    PENDING | {"filter": {"status": None}},
    PENDING | {"filter": {"status": {"is": "pending"}}},
    PENDING | {"filter": {"min_attempt": 10**30}},
    PENDING | {"filter": {"min_attempt": 1.5}},
    PENDING | {"filter": {"agent_name": ["a", "b"]}},
    PENDING | {"filter": {"created_after": "yesterday"}},
    PENDING | {"filter": {"status": "pending", "not_status": "pending"}},
    PENDING | {"filter": {"label": "no equals sign"}},
    PENDING | {"filter": {"label": ["a=" + "x" * 200] * 500}},
    PENDING | {"filters": {"status": "pending"}},
    PENDING | {"token": "blt_x"},
    {"token": "x" * 200},
    {"token": 1},
    {"token": "blt_\x00"},
]


def test_bad_bulk_is_refused_with_what_to_change(web: WebInThread, db: DbVerbs) -> None:
    for body in BAD:
        answer = web.client.post("/bulk", body)
        assert answer.status_code == 422, (body, answer.text)
        for fault in answer.json()["detail"]:
            assert fault["loc"][0] == "body", body
            assert fault["msg"], body
    assert db.count("bulk_jobs") == 0


def test_bulk_of_other_sizes_is_refused(web: WebInThread) -> None:
    """Answer parameters that are too large, or not those of the agent, as a submission does."""
    replay = PENDING | {"action": "replay"}
    large = web.client.post("/bulk", replay | {"changes": {"parameters": {"prompt": "x" * 300_000}}})
    wrong = web.client.post("/bulk", replay | {"changes": {"parameters": {"question": "x"}}})
    body = web.client.raw("/bulk", b'{"action": "' + b"x" * 2**20 + b'"}')
    assert (large.status_code, wrong.status_code, body.status_code) == (413, 400, 413)


def test_token_is_for_its_caller(settings: Settings, db: DbVerbs) -> None:
    """Say what to do about an unknown one; a runner has no bulks."""
    with web_with_auth(settings) as web:
        keys = {
            name: make_key(db, role, name)
            for name, role in {"ann": Role.USER, "bob": Role.USER, "boss": Role.ADMIN, "box": Role.RUNNER}.items()
        }
        with (
            client_with(web.client.url, keys["ann"]) as ann,
            client_with(web.client.url, keys["bob"]) as bob,
            client_with(web.client.url, keys["boss"]) as boss,
            client_with(web.client.url, keys["box"]) as box,
        ):
            run_id = ann.submit()["run_id"]
            token = previewed(ann, action="stop", run_ids=[run_id])["token"]
            for other in (bob, boss):
                answer = other.post("/bulk", {"token": token})
                assert answer.status_code == 404
                assert "ask again with dry_run" in answer.json()["detail"]
            bulk_id = started(ann, token)
            assert shown(ann, bulk_id)["created_by"].startswith("key:")
            assert bob.get(f"/bulk/{bulk_id}").status_code == bob.post(f"/bulk/{bulk_id}/stop").status_code == 404
            assert bob.get("/bulk").json() == {"bulks": []}
            assert shown(boss, bulk_id)["total"] == 1
            refused = bob.post("/bulk", PENDING | {"filter": {"owner": "ann"}})
            assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["body", "filter", "owner"])
            assert previewed(boss, action="stop", filter={"owner": "ann"})["matches"] == 1
            assert previewed(bob, action="stop", run_ids=[run_id])["matches"] == 0
            for path in ("/bulk", f"/bulk/{bulk_id}"):
                assert box.get(path).status_code == 403
            assert box.post("/bulk", PENDING).status_code == box.post(f"/bulk/{bulk_id}/stop").status_code == 403


def test_bulk_counts_as_one_change(settings: Settings, db: DbVerbs) -> None:
    limited = settings.model_copy(update={"changes_per_minute": 2})
    with web_with_auth(limited) as web, client_with(web.client.url, make_key(db, Role.USER, "ann")) as client:
        assert [client.post("/bulk", PENDING).status_code for _ in range(3)] == [200, 200, 429]
        assert client.get("/bulk").status_code == 200


def test_list_of_bulks_has_pages(web: WebInThread) -> None:
    """Go on by the cursor; refuse unknown parameters and cursors from elsewhere."""
    client = web.client
    made = [started(client, previewed(client, action="stop", run_ids=["run_x"])["token"]) for _ in range(5)]
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = client.get("/bulk", limit=2, **after).json()
        seen += [bulk["bulk_id"] for bulk in page["bulks"]]
        if "next_cursor" not in page:
            break
        after = {"cursor": page["next_cursor"]}
    assert seen == made[::-1]
    assert client.get("/bulk", cursor="x").status_code == 400
    assert client.get("/bulk", state="running").status_code == 422


def test_deleted_sessions_are_those_of_the_caller(settings: Settings, db: DbVerbs) -> None:
    """Count what an admin's filter matches among all owners."""
    sessions = {name: finished(db, caller=Caller(Role.USER, name)) for name in ("ann", "bob")}
    with web_with_auth(settings) as web, client_with(web.client.url, make_key(db, Role.USER, "ann")) as ann:
        preview = previewed(ann, action="delete", filter={"status": "completed"})
        assert preview["matches"] == 1
        started(ann, preview["token"])
        work_all(db)
    assert [row.session_id for row in db.rows("SELECT session_id FROM sessions")] == [sessions["bob"]]
