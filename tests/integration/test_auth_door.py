"""Who is let in, over the wire: what is shown, how, and what each role may call (docs/security.md)."""

from collections.abc import Iterator
from typing import Any

import pytest

import app.auth.known_keys
from app.auth.permissions import PERMISSIONS
from models.auth.keys import key_revision
from models.core.callers import Role
from runtime.settings import Settings
from tests.support.callers import bearer, calling, make_key, revoke
from tests.support.db_verbs import DbVerbs
from tests.support.waiting import eventually
from tests.support.web import JSON, PROMPT, WebClient, WebInThread, served

OWNERS: dict[Role, str | None] = {Role.ADMIN: None, Role.USER: "ann", Role.RUNNER: "machine"}
NOT_LET_IN = {401, 403}
REGISTERED = {"hostname": "h", "project_dir": "/p", "executor_profile": "e", "executor": {"type": "autonomous"}}


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings.model_copy(update={"auth": True})) as web:
        yield web


def status_of(client: WebClient, name: str, **headers: str) -> int:
    """What is answered to a call of this endpoint that asks for nothing that is there."""
    method, _, path = name.partition(" ")
    path = path.format(run_id="run_none", session_id="none", runner_id="lnch_none")
    body: dict[str, Any] = {"content": b"{}"} if method in {"POST", "PATCH"} else {}
    with client.http.stream(
        method, path, params={"wait": "0", "runner_id": "lnch_none"}, headers=JSON | headers, **body
    ) as answer:
        return answer.status_code


@pytest.mark.parametrize("auth", ["setting", "key"])
def test_nobody_is_let_in_without_a_credential(settings: Settings, db: DbVerbs, auth: str) -> None:
    """401 to all but signs of health, as soon as one source of credentials is there."""
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
def test_each_role_may_call_what_the_table_says(client: WebClient, db: DbVerbs, role: Role) -> None:
    """403 exactly where the table has no words for the role; 401 only for a runner that is not registered."""
    token = make_key(db, role, OWNERS[role])
    refused = {name for name in PERMISSIONS if status_of(client, name, **bearer(token)) == 403}
    assert refused == {name for name, access in PERMISSIONS.items() if not access.allows(role) and not access.public}


def test_a_key_is_shown_as_a_bearer_token_or_as_x_api_key(client: WebClient, db: DbVerbs) -> None:
    """Both are the same; the scheme's case does not matter."""
    token = make_key(db, Role.USER, "ann")
    for headers in (bearer(token), {"Authorization": f"bearer  {token}"}, {"X-API-Key": token}):
        assert client.http.get("/runs", headers=headers).status_code == 200


def test_a_key_in_the_query_is_taken_only_where_that_is_allowed(settings: Settings, db: DbVerbs) -> None:
    """COORDINATOR_ALLOW_QUERY_TOKENS, and then on GETs only."""
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
def test_what_is_no_credential_at_all_is_401(client: WebClient, shown: str) -> None:
    """It is malformed: nothing is looked up for it."""
    for name, value in (("Authorization", f"Bearer {shown}".strip()), ("X-API-Key", shown)):
        assert client.http.get("/runs", headers={name.encode(): value.encode()}).status_code == 401
    assert client.http.get("/runs", headers={"Authorization": "Basic YTpi"}).status_code == 401


def test_a_key_that_is_not_good_is_403(client: WebClient, db: DbVerbs) -> None:
    """Never made, another secret, expired before it was ever used, revoked before it was ever used."""
    good = make_key(db, Role.ADMIN)
    key_id = good.rpartition("_")[0]
    expired = make_key(db, Role.ADMIN, expires_in=-1)
    revoked = make_key(db, Role.ADMIN)
    revoke(db, revoked)
    for token in (f"crd_0123456789ab_{64 * '0'}", f"{key_id}_{64 * '0'}", expired, revoked):
        for _ in range(2):
            assert client.http.get("/runs", headers=bearer(token)).status_code == 403
    assert client.http.get("/runs", headers=bearer(good)).status_code == 200


def test_the_first_key_closes_a_running_process(settings: Settings, db: DbVerbs) -> None:
    """Until then everybody is an admin; nobody restarts anything."""
    with served(settings) as web:
        assert web.client.get("/runs").status_code == 200
        assert web.client.http.get("/runs", headers={"Authorization": "nonsense"}).status_code == 200
        token = make_key(db, Role.ADMIN)
        eventually(lambda: web.client.get("/runs").status_code == 401, 5, what="asking for credentials")
        assert web.client.http.get("/runs", headers=bearer(token)).status_code == 200


def test_a_process_that_was_closed_stays_closed_when_its_last_key_is_revoked(settings: Settings, db: DbVerbs) -> None:
    """Revoking must never let everybody in."""
    token = make_key(db, Role.ADMIN)
    revoke(db, token)
    with served(settings) as web:
        assert web.client.get("/runs").status_code == 401


def test_a_key_ends_while_it_is_in_use(client: WebClient, db: DbVerbs) -> None:
    """By its time, and by being revoked, although the process knows it."""
    short, long = make_key(db, Role.USER, "ann", expires_in=1), make_key(db, Role.USER, "ann")
    assert client.http.get("/runs", headers=bearer(short)).status_code == 200
    assert client.http.get("/runs", headers=bearer(long)).status_code == 200
    revoke(db, long)
    for token in (short, long):
        eventually(lambda token=token: client.http.get("/runs", headers=bearer(token)).status_code == 403, 5)


def test_made_up_keys_neither_grow_nor_empty_what_is_remembered(
    web: WebInThread, client: WebClient, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known keys and ids that no key has are bounded, each for themselves."""
    monkeypatch.setattr(app.auth.known_keys, "MOST_KEYS", 5)
    token = make_key(db, Role.USER, "ann")
    keys = web.app.state.web.callers._keys
    # What it reads while it hears of a change is not remembered.
    eventually(lambda: keys._revision == db.do(key_revision), what="the process hears of the new key")
    assert client.http.get("/runs", headers=bearer(token)).status_code == 200
    for number in range(20):
        assert client.http.get("/runs", headers=bearer(f"crd_{number:012x}_{64 * '0'}")).status_code == 403
    assert list(keys._known) == [token[:16]]
    assert len(keys._unknown) == 5


def test_where_a_page_comes_from_is_no_matter_once_credentials_are_asked_for(client: WebClient, db: DbVerbs) -> None:
    """Foreign hosts are refused only while everybody is an admin."""
    token = make_key(db, Role.USER, "ann")
    assert client.http.get("/runs", headers=bearer(token) | {"Host": "runs.example"}).status_code == 200


def test_a_runner_works_with_its_key(client: WebClient, db: DbVerbs) -> None:
    """Registers, polls, reports and beats; nobody else acts for it, and to a stranger it is not registered."""
    with (
        calling(client.url, make_key(db, Role.RUNNER, "one")) as one,
        calling(client.url, make_key(db, Role.RUNNER, "two")) as two,
        calling(client.url, make_key(db, Role.USER, "ann")) as ann,
    ):
        runner_id = one.register()
        submitted = ann.submit()
        assert two.poll(runner_id, 10).status_code == 401
        assert two.post("/runner/heartbeat", {"runner_id": runner_id}).status_code == 401
        run = one.claim(runner_id)
        assert run["run_id"] == submitted["run_id"]
        assert two.report(run, runner_id, "started").status_code == 401
        assert one.report(run, runner_id, "started").status_code == 200
        assert one.report(run, runner_id, "completed").status_code == 200
        assert two.http.delete(f"/runners/{runner_id}").status_code == 404
        assert [shown["runner_id"] for shown in one.get("/runners").json()["runners"]] == [runner_id]
        assert two.get("/runners").json() == {"runners": []}
        assert ann.status(run["run_id"]) == "completed"


def test_runner_cannot_take_another_ones_registration(client: WebClient, db: DbVerbs) -> None:
    """The same four properties of another subject are another runner."""
    with (
        calling(client.url, make_key(db, Role.RUNNER, "one")) as one,
        calling(client.url, make_key(db, Role.RUNNER, "two")) as two,
    ):
        first, second = one.register(instance_id="a"), two.register(instance_id="a")
        assert first != second
        assert [shown["runner_id"] for shown in one.get("/runners").json()["runners"]] == [first]
        assert [shown["runner_id"] for shown in two.get("/runners").json()["runners"]] == [second]


def test_a_runner_starts_no_session_of_its_own(client: WebClient, db: DbVerbs) -> None:
    """What it starts belongs to a tree that it holds; in a batch only that item is refused."""
    with calling(client.url, make_key(db, Role.RUNNER, "one")) as one:
        body = {"type": "start_session", "parameters": PROMPT}
        assert one.post("/runs", body).status_code == 403
        assert [item["code"] for item in one.post("/runs/batch", {"runs": [body]}).json()["results"]] == [403]
