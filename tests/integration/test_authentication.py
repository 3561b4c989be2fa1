"""Authentication over the wire: credentials, their places in requests, and each role's calls (docs/security.md)."""

from collections.abc import Iterator
from typing import Any

import pytest
from cachetools import FIFOCache

from app.auth.permissions import PERMISSIONS
from models.auth.keys import key_revision
from models.core.callers import Role
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.callers import bearer, client_with, make_key, revoke
from tests.support.db_verbs import DbVerbs
from tests.support.web import JSON, PROMPT, WebClient, WebInThread, served

OWNERS: dict[Role, str | None] = {Role.ADMIN: None, Role.USER: "ann", Role.RUNNER: "machine"}
REFUSED = {401, 403}
REGISTERED = {"hostname": "h", "project_dir": "/p", "executor_profile": "e", "executor": {"type": "autonomous"}}


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings.model_copy(update={"auth": True})) as web:
        yield web


def status_of(client: WebClient, name: str, **headers: str) -> int:
    """Return the status of a call of this endpoint that names nothing existing."""
    method, _, path = name.partition(" ")
    path = path.format(
        run_id="run_none",
        session_id="none",
        runner_id="lnch_none",
        key_id="crd_none",
        bulk_id="blk_none",
        schedule_id="none",
        webhook_id="none",
        event_id="none",
        server_id="none",
        name="none",
    )
    body: dict[str, Any] = {"content": b"{}"} if method in {"POST", "PATCH"} else {}
    with client.http.stream(
        method, path, params={"wait": "0", "runner_id": "lnch_none"}, headers=JSON | headers, **body
    ) as answer:
        return answer.status_code


@pytest.mark.parametrize("auth", ["setting", "key"])
def test_no_call_passes_without_credential(settings: Settings, db: DbVerbs, auth: str) -> None:
    """Answer 401 to all but health checks as soon as one source of credentials exists."""
    if auth == "key":
        make_key(db, Role.USER, "ann")
    with served(settings.model_copy(update={"auth": auth == "setting"})) as web:
        eventually(lambda: web.app.state.web.callers.auth_required)
        authenticate = {name for name in PERMISSIONS if status_of(web.client, name) != 401}
        assert authenticate == {name for name, access in PERMISSIONS.items() if access.public}
        refused = web.client.get("/runs")
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert set(refused.json()) == {"detail"}


@pytest.mark.parametrize("role", Role)
def test_each_role_may_call_what_permission_table_allows(client: WebClient, db: DbVerbs, role: Role) -> None:
    """Answer 403 exactly where the table does not allow the role; 401 only for a runner that is not registered."""
    token = make_key(db, role, OWNERS[role])
    refused = {name for name in PERMISSIONS if status_of(client, name, **bearer(token)) == 403}
    assert refused == {name for name, access in PERMISSIONS.items() if not access.allows(role) and not access.public}


def test_key_is_accepted_as_bearer_token_or_x_api_key(client: WebClient, db: DbVerbs) -> None:
    token = make_key(db, Role.USER, "ann")
    for headers in (bearer(token), {"Authorization": f"bearer  {token}"}, {"X-API-Key": token}):
        assert client.http.get("/runs", headers=headers).status_code == 200


def test_key_in_query_is_accepted_only_where_allowed(settings: Settings, db: DbVerbs) -> None:
    """Accept it with COORDINATOR_ALLOW_QUERY_TOKENS, and then on GETs only."""
    token = make_key(db, Role.USER, "ann")
    for allowed in (False, True):
        with served(settings.model_copy(update={"auth": True, "allow_query_tokens": allowed})) as web:
            assert web.client.get("/runs", api_key=token).status_code == (200 if allowed else 401)
            body = {"type": "start_session", "parameters": PROMPT}
            assert web.client.post(f"/runs?api_key={token}", body).status_code == 401


@pytest.mark.parametrize(
    "shown",
    ["", "crd_", "crd_0123456789ab", "Bearer", "a.b", "..", "x" * 9000, "a b.c.d", "Ünicode.b.c", "crd_0123456789AB_" + 64 * "0"],
)  # fmt: skip
def test_malformed_credential_is_401_without_lookup(client: WebClient, shown: str) -> None:
    for name, value in (("Authorization", f"Bearer {shown}".strip()), ("X-API-Key", shown)):
        assert client.http.get("/runs", headers={name.encode(): value.encode()}).status_code == 401
    assert client.http.get("/runs", headers={"Authorization": "Basic YTpi"}).status_code == 401


def test_bad_key_is_403(client: WebClient, db: DbVerbs) -> None:
    """Cover a key never made, one with another secret, one expired and one revoked before its first use."""
    good = make_key(db, Role.ADMIN)
    key_id = good.rpartition("_")[0]
    expired = make_key(db, Role.ADMIN, expires_in=-1)
    revoked = make_key(db, Role.ADMIN)
    revoke(db, revoked)
    for token in (f"crd_0123456789ab_{64 * '0'}", f"{key_id}_{64 * '0'}", expired, revoked):
        for _ in range(2):
            assert client.http.get("/runs", headers=bearer(token)).status_code == 403
    assert client.http.get("/runs", headers=bearer(good)).status_code == 200


def test_first_key_turns_authentication_on_in_running_process(settings: Settings, db: DbVerbs) -> None:
    """Treat every caller as an admin until then; no restart is needed."""
    with served(settings) as web:
        assert web.client.get("/runs").status_code == 200
        assert web.client.http.get("/runs", headers={"Authorization": "nonsense"}).status_code == 200
        token = make_key(db, Role.ADMIN)
        eventually(lambda: web.client.get("/runs").status_code == 401, 5, what="asking for credentials")
        assert web.client.http.get("/runs", headers=bearer(token)).status_code == 200


def test_authentication_stays_on_after_last_key_is_revoked(settings: Settings, db: DbVerbs) -> None:
    """Revoke the last key: that must never make every caller an admin."""
    token = make_key(db, Role.ADMIN)
    revoke(db, token)
    with served(settings) as web:
        assert web.client.get("/runs").status_code == 401


def test_key_in_use_ends_by_expiry_or_revocation(client: WebClient, db: DbVerbs) -> None:
    """End a key that the process has cached."""
    short, long = make_key(db, Role.USER, "ann", expires_in=1), make_key(db, Role.USER, "ann")
    assert client.http.get("/runs", headers=bearer(short)).status_code == 200
    assert client.http.get("/runs", headers=bearer(long)).status_code == 200
    revoke(db, long)
    for token in (short, long):
        eventually(lambda token=token: client.http.get("/runs", headers=bearer(token)).status_code == 403, 5)


def test_made_up_keys_neither_grow_nor_empty_cache(
    web: WebInThread, client: WebClient, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bound known keys and unknown ids, each by themselves."""
    token = make_key(db, Role.USER, "ann")
    keys = web.app.state.web.callers._keys
    monkeypatch.setattr(keys, "_known", FIFOCache(5))
    monkeypatch.setattr(keys, "_unknown", FIFOCache(5))
    # Reads that overlap a change are not cached.
    eventually(lambda: keys._revision == db.do(key_revision), what="the process hears of the new key")
    assert client.http.get("/runs", headers=bearer(token)).status_code == 200
    for number in range(20):
        assert client.http.get("/runs", headers=bearer(f"crd_{number:012x}_{64 * '0'}")).status_code == 403
    assert list(keys._known) == [token[:16]]
    assert len(keys._unknown) == 5


def test_foreign_hosts_are_allowed_once_credentials_are_required(client: WebClient, db: DbVerbs) -> None:
    """Refuse foreign hosts only while every caller is an admin."""
    token = make_key(db, Role.USER, "ann")
    assert client.http.get("/runs", headers=bearer(token) | {"Host": "runs.example"}).status_code == 200


def test_runner_key_acts_for_its_runner_alone(client: WebClient, db: DbVerbs) -> None:
    with (
        client_with(client.url, make_key(db, Role.RUNNER, "one")) as runner_client,
        client_with(client.url, make_key(db, Role.RUNNER, "two")) as two,
        client_with(client.url, make_key(db, Role.USER, "ann")) as ann,
    ):
        runner_id = runner_client.register()
        submitted = ann.submit()
        assert two.poll(runner_id, 10).status_code == 401
        assert two.post("/runner/heartbeat", {"runner_id": runner_id}).status_code == 401
        run = runner_client.claim(runner_id)
        assert run["run_id"] == submitted["run_id"]
        assert two.report(run, runner_id, "started").status_code == 401
        assert runner_client.report(run, runner_id, "started").status_code == 200
        assert runner_client.report(run, runner_id, "completed").status_code == 200
        assert two.http.delete(f"/runners/{runner_id}").status_code == 404
        assert [shown["runner_id"] for shown in runner_client.get("/runners").json()["runners"]] == [runner_id]
        assert two.get("/runners").json() == {"runners": []}
        assert ann.status(run["run_id"]) == "completed"


def test_runner_cannot_take_registration_of_another_subject(client: WebClient, db: DbVerbs) -> None:
    """Register the same four properties as another subject: that is another runner."""
    with (
        client_with(client.url, make_key(db, Role.RUNNER, "one")) as runner_client,
        client_with(client.url, make_key(db, Role.RUNNER, "two")) as other_client,
    ):
        first, second = runner_client.register(instance_id="a"), other_client.register(instance_id="a")
        assert first != second
        assert [shown["runner_id"] for shown in runner_client.get("/runners").json()["runners"]] == [first]
        assert [shown["runner_id"] for shown in other_client.get("/runners").json()["runners"]] == [second]


def test_runner_starts_sessions_only_below_its_own(client: WebClient, db: DbVerbs) -> None:
    """Allow only children of a session tree that it holds; in a batch refuse that item alone."""
    with client_with(client.url, make_key(db, Role.RUNNER, "one")) as runner_client:
        body = {"type": "start_session", "parameters": PROMPT}
        assert runner_client.post("/runs", body).status_code == 403
        assert [item["code"] for item in runner_client.post("/runs/batch", {"runs": [body]}).json()["results"]] == [403]
