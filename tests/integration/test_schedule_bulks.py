"""Pause, resume and delete many schedules by one request."""

from contextlib import ExitStack
from typing import Any

from models.core.callers import Role
from runtime.settings import Settings
from tests.support.answer_models import check_fields
from tests.support.callers import client_with, make_key, web_with_auth
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebClient

BODY = b'{"spec": {"every_seconds": 3600}, "run": {"type": "start_session", "parameters": {"prompt": "x"}}}'
BULK = "/schedules/bulk"
ALL = {"id_prefix": ""}
BAD: list[Any] = [
    [],
    {"filter": ALL},
    {"action": "pause"},
    {"action": "sleep", "filter": ALL},
    {"action": "pause", "filter": {}},
    {"action": "pause", "filter": {"colour": "red"}},
    {"action": "delete", "filter": {"id_prefix": None, "paused": None}},
    {"action": "pause", "filter": {"id_prefix": None, "paused": "yes"}},
    {"action": "pause", "filter": ALL, "schedule_ids": ["a"]},
    {"action": "pause", "schedule_ids": []},
    {"action": "pause", "schedule_ids": ["a"] * 201},
    {"action": "pause", "schedule_ids": [1]},
    {"action": "resume", "schedule_ids": ["a"], "note": "x"},
    {"action": "pause", "schedule_ids": ["a"], "limit": 0},
    {"action": "pause", "schedule_ids": ["a"], "note": "x" * 1001},
]


def change(client: WebClient, action: str, **fields: Any) -> dict[str, Any]:
    answer = client.post(BULK, {"action": action, **fields})
    assert answer.status_code == 200, answer.text
    check_fields(f"POST {BULK}", 200, answer.json())
    found: dict[str, Any] = answer.json()
    return found


def test_many_schedules_are_changed_by_one_request(settings: Settings, db: DbVerbs) -> None:
    """Act on exactly what a dry run named, page by page; leave other owners' alone, and say what was skipped."""
    with ExitStack() as stack:
        web = stack.enter_context(web_with_auth(settings))
        ann, bob = (
            stack.enter_context(client_with(web.client.url, make_key(db, Role.USER, name))) for name in ("ann", "bob")
        )
        admin = stack.enter_context(client_with(web.client.url, make_key(db, Role.ADMIN, "root")))
        for client, names in ((ann, ("n-1", "n-2", "n-3", "other", "n_4")), (bob, ("n-9",))):
            for name in names:
                assert client.raw(f"/schedules/{name}", BODY, "PUT").status_code == 201
        for body in BAD:
            assert ann.post(BULK, body).status_code == 422, body
        planned = change(ann, "pause", filter={"id_prefix": "n-"}, limit=2, dry_run=True)
        assert (planned["schedule_ids"], planned["more"], planned["dry_run"]) == (["n-1", "n-2"], True, True)
        assert db.count("schedules", "paused") == 0
        done = change(ann, "pause", schedule_ids=planned["schedule_ids"], note="move")
        assert (done["schedule_ids"], done["skipped"], done["more"]) == (["n-1", "n-2"], {}, False)
        rest = change(ann, "pause", filter={"id_prefix": "n-"}, limit=2)
        assert (rest["schedule_ids"], rest["more"]) == (["n-3"], False)
        reasons = db.rows("SELECT pause_reason FROM schedules WHERE paused ORDER BY schedule_id")
        assert [row.pause_reason for row in reasons] == ["move", "move", None]
        named = change(ann, "pause", schedule_ids=["n-1", "n-9", "none", "other", "n-none"])
        assert ann.post(BULK, {"action": "pause", "schedule_ids": ["nul\0"]}).status_code == 422
        assert (named["schedule_ids"], named["skipped"]) == (["other"], {"not found": 3, "already paused": 1})
        assert change(bob, "delete", filter=ALL, dry_run=True)["schedule_ids"] == ["n-9"]
        assert change(bob, "pause", filter={"owner": "ann"})["schedule_ids"] == []
        resumed = change(admin, "resume", filter={"owner": "ann"})
        assert (resumed["schedule_ids"], resumed["skipped"]) == (["n-1", "n-2", "n-3", "other"], {})
        assert change(ann, "delete", filter={"paused": False, "id_prefix": "n-"})["schedule_ids"] == [
            "n-1",
            "n-2",
            "n-3",
        ]
        left = [row.schedule_id for row in db.rows("SELECT schedule_id FROM schedules ORDER BY schedule_id")]
        assert sorted(left) == ["n-9", "n_4", "other"]
        acts = [entry["act"] for entry in admin.get("/audit").json()["entries"]]
        assert acts.count("schedule_resumed") == 4
