"""Keys, the audit log and the state of the coordinator over HTTP, for admins alone."""

from datetime import UTC, datetime

from sqlalchemy import text

from models.auth.audit import ActFilter, AuditPage, page_acts
from models.core.callers import Role
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.answer_models import check_fields
from tests.support.callers import bearer, client_with, make_key, web_with_auth
from tests.support.db_verbs import DbVerbs
from tests.support.web import served, until_ready

REFUSED_KEYS = [
    {},
    {"role": "root"},
    {"role": "user"},
    {"role": "runner", "owner": " "},
    {"role": "user", "owner": "a\u0000"},
    {"role": "user", "owner": "a\ud800"},
    {"role": "user", "owner": "x" * 256},
    {"role": "admin", "expires_in_seconds": 10**30},
    {"role": "admin", "expires_in_seconds": 0},
    {"role": "admin", "name": "x" * 2000},
]


def test_admin_manages_keys_and_reads_what_was_done(settings: Settings, db: DbVerbs) -> None:
    """Create, list and revoke keys; each act is in the log, which pages and filters; no secret is in any list."""
    admin, user = make_key(db, Role.ADMIN), make_key(db, Role.USER, "ann")
    with web_with_auth(settings) as web, client_with(web.client.url, admin) as client:
        for body in REFUSED_KEYS:
            assert client.post("/keys", body).status_code == 422, body
        created = client.post("/keys", {"role": "user", "owner": "bob", "expires_in_seconds": 3600})
        assert (created.status_code, created.headers["cache-control"]) == (201, "no-store")
        check_fields("POST /keys", 201, created.json())
        token, key_id = created.json()["key"], created.json()["key_id"]
        me = web.client.http.get("/me", headers=bearer(token)).json()
        assert (me["role"], me["owner"], me["credential"]) == ("user", "bob", f"key:{key_id}")
        listed = client.http.get("/keys")
        check_fields("GET /keys", 200, listed.json())
        # Whether its use above is written yet is another matter.
        shown = listed.json()["keys"][-1] | {"last_used_at": None}
        assert shown == {name: value for name, value in created.json().items() if name != "key"}
        assert token.rpartition("_")[2] not in listed.text
        for _ in range(2):
            revoked = client.http.delete(f"/keys/{key_id}")
            check_fields("DELETE /keys/{key_id}", 200, revoked.json())
            assert revoked.json()["state"] == "revoked"
        assert client.http.delete("/keys/crd_unknown%00").status_code == 404
        page = client.http.get("/audit?limit=1").json()
        check_fields("GET /audit", 200, page)
        by = f"key:{admin.rpartition('_')[0]}"
        assert [(entry["act"], entry["by"], entry["target"]) for entry in page["entries"]] == [
            ("key_revoked", by, key_id)
        ]
        rest = client.http.get(f"/audit?limit=1&target={key_id}&cursor={page['next_cursor']}").json()
        assert [entry["act"] for entry in rest["entries"]] == ["key_created"]
        assert "next_cursor" not in rest
        assert client.http.get(f"/audit?by={by}&act=key_created").json()["entries"] == rest["entries"]
        moment = rest["entries"][0]["at"]
        for window, found in (("since", ["key_revoked", "key_created"]), ("until", [])):
            acts = client.http.get("/audit", params={"target": key_id, window: moment}).json()["entries"]
            assert [entry["act"] for entry in acts] == found
        assert client.http.get("/audit?since=yesterday").status_code == 422
        assert client.http.get("/audit?cursor=x").status_code == 400
        assert client.http.get("/audit?act=a&act=b").status_code == 422
        with client_with(web.client.url, user) as other:
            for path in ("/audit", "/keys", "/system"):
                assert other.http.get(path).status_code == 403
            assert other.post("/keys", {"role": "admin"}).status_code == 403
            assert other.http.delete(f"/keys/{key_id}").status_code == 403


def test_system_shows_state_and_masks_passwords(settings: Settings, db: DbVerbs) -> None:
    """Refuse the first key over HTTP: any client could lock all others out."""
    url = settings.database_url
    password = url.partition("://")[2].partition("@")[0].partition(":")[2]
    with served(settings) as web:
        until_ready(web)
        # The first heartbeat follows the readiness.
        eventually(lambda: db.count("instances") == 1)
        answer = web.client.http.get("/system")
        system = answer.json()
        check_fields("GET /system", 200, system)
        assert system["versions"]["schema_found"] == system["versions"]["schema_needed"]
        assert system["instance"] in {sign["name"] for sign in system["instances"]}
        shown = {setting["name"]: setting["value"] for setting in system["settings"]}
        assert shown["COORDINATOR_LIST_LIMIT"] == str(settings.list_limit)
        assert password
        assert f":{password}@" not in answer.text
        assert web.client.post("/keys", {"role": "admin"}).status_code == 409
        assert web.client.http.get("/keys").json() == {"keys": []}


ACTS = """
INSERT INTO audit_log (act, actor, target, created_at)
SELECT CASE WHEN n % 40 = 0 THEN 'rare' ELSE 'usual' END, 'key:a', 'run_' || n,
    TIMESTAMPTZ '2026-01-01T00:00Z' + n * interval '1 hour'
FROM generate_series(1, 100) n
"""


def walk_of_acts(db: DbVerbs, which: ActFilter) -> tuple[list[str], int]:
    """Return the targets of all pages that look at ten acts each, and the number of pages."""
    targets: list[str] = []
    cursor: str | None = None
    for pages in range(1, 20):
        with db.engine.connect() as conn:
            page = page_acts(conn, which, limit=3, before=cursor, looked_at=10)
        assert isinstance(page, AuditPage)
        targets += [entry.target for entry in page.entries]
        if (cursor := page.next_cursor) is None:
            return targets, pages
    raise AssertionError("the walk has no end")


def test_walk_through_audit_log_passes_stretches_without_a_match(db: DbVerbs) -> None:
    """Look on from the bound of a page, and end where no act can be of the time asked for."""
    with db.engine.begin() as conn:
        conn.execute(text(ACTS))
    assert walk_of_acts(db, ActFilter(act="rare")) == (["run_80", "run_40"], 11)
    recent, pages = walk_of_acts(db, ActFilter(since=datetime(2026, 1, 4, 12, tzinfo=UTC)))
    assert (recent, pages) == ([f"run_{n}" for n in range(100, 83, -1)], 6)
    day = ActFilter(since=datetime(2026, 1, 2, tzinfo=UTC), until=datetime(2026, 1, 2, 2, tzinfo=UTC))
    assert walk_of_acts(db, day)[0] == ["run_25", "run_24"]
