"""`coordinator keys`, and commands and runners that present a key."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from models.auth.keys import find_keys
from models.core.callers import Role
from runtime.settings import Settings
from testkit.cluster import Cluster
from testkit.waiting import eventually
from tests.support.callers import bearer, make_key
from tests.support.command import Ended, coordinator
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebClient


def keys(settings: Settings, directory: Path, *arguments: str) -> Ended:
    return coordinator("keys", *arguments, home=directory, COORDINATOR_DATABASE_URL=settings.database_url)


def listed(settings: Settings, directory: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(keys(settings, directory, "list", "--json").stdout)
    return found


def test_key_is_shown_once_and_kept_as_hash(settings: Settings, db: DbVerbs, tmp_path: Path) -> None:
    """Print the token alone on stdout; neither the database nor a list holds it."""
    made = keys(settings, tmp_path, "create", "--role", "user", "--owner", "ann", "--expires", "90d", "--name", "ci")
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    key_id, _, secret = token.rpartition("_")
    (stored,) = db.rows("SELECT k::text AS row, expires_at - created_at AS lives FROM api_keys k")
    assert secret not in stored.row
    assert stored.lives.days == 90
    shown = keys(settings, tmp_path, "list")
    assert secret not in shown.stdout
    assert key_id in shown.stdout
    (key,) = listed(settings, tmp_path)
    assert (key["role"], key["owner"], key["name"], key["state"]) == ("user", "ann", "ci", "good")
    assert not {"secret_hash", "lives_for"} & set(key)


def test_revoked_key_stays_listed(settings: Settings, db: DbVerbs, tmp_path: Path) -> None:
    """Revoke by id or by whole token; an unknown one is an error and does not keep the others."""
    first, second = make_key(db, Role.ADMIN), make_key(db, Role.RUNNER, "machine")
    revoked = keys(settings, tmp_path, "revoke", first[:16], second)
    assert revoked.returncode == 0, revoked.stderr
    assert second.rpartition("_")[2] not in revoked.stdout + revoked.stderr
    assert [key["state"] for key in listed(settings, tmp_path)] == ["revoked", "revoked"]
    unknown = keys(settings, tmp_path, "revoke", "crd_000000000000")
    assert (unknown.returncode, unknown.stdout) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--role", "root"), "admin, user or runner"),
        (("--role", "user"), "needs an owner"),
        (("--role", "runner", "--owner", " "), "printable"),
        (("--role", "admin", "--expires", "soon"), "90d"),
        (("--role", "admin", "--expires", "0d"), "90d"),
    ],
)
def test_invalid_key_is_refused_without_turning_authentication_on(
    settings: Settings, db: DbVerbs, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    refused = keys(settings, tmp_path, "create", *arguments)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert db.one("SELECT count(*) FROM api_keys") == 0


def test_commands_present_token_they_are_given(cluster: Cluster, db: DbVerbs, tmp_path: Path) -> None:
    """Read it from an option, the environment or a file; without one, state in one line what is missing."""
    url = cluster.start_web(auth=1).url
    token = make_key(db, Role.USER, "ann")
    file = tmp_path / "mine"
    file.write_text(token)
    file.chmod(0o600)
    where = {"COORDINATOR_URL": url}
    for shown in (
        coordinator("submit", "hello", "--token", token, home=tmp_path, **where),
        coordinator("runs", home=tmp_path, COORDINATOR_TOKEN=token, **where),
        coordinator("runs", home=tmp_path, COORDINATOR_TOKEN_FILE=str(file), **where),
    ):
        assert shown.returncode == 0, shown.stderr
    without = coordinator("runs", home=tmp_path, **where)
    assert without.returncode != 0
    assert "API key" in without.stderr
    assert len(without.stderr.splitlines()) == 1
    file.chmod(0o644)
    careless = coordinator("runs", home=tmp_path, COORDINATOR_TOKEN_FILE=str(file), **where)
    assert (careless.returncode, "chmod 600" in careless.stderr) == (2, True)
    assert token not in careless.stderr


def test_runner_works_with_key_and_hides_it_from_its_command(cluster: Cluster, db: DbVerbs) -> None:
    """Register, poll, bind, write events and report with the key; the command that the runner starts does not get it."""
    url = cluster.start_web(auth=1).url
    token = make_key(db, Role.RUNNER, "machine")
    client = WebClient(url, make_key(db, Role.USER, "ann"))
    script = "import os; print([name for name in os.environ if 'TOKEN' in name])"
    runner = cluster.start("runner", ["runner", "--url", url, "--", sys.executable, "-uc", script], {"token": token})
    run = client.submit()
    eventually(lambda: client.status(run["run_id"]) == "completed", what=runner.log())
    events = client.get(f"/sessions/{run['session_id']}/events").json()["events"]
    assert [event["content"][0]["text"] for event in events if event["event_type"] == "message"] == ["[]"]
    assert token not in runner.log()
    client.close()


def test_runner_with_rejected_key_exits_with_reason(cluster: Cluster, db: DbVerbs) -> None:
    """Stop at 403, which is final."""
    url = cluster.start_web(auth=1).url
    token = make_key(db, Role.USER, "ann")
    runner = cluster.start("runner", ["runner", "--url", url, "--", "true"], {"token": token})
    assert runner.wait(30) == 1
    assert "403" in runner.log()


def test_public_address_needs_authentication_or_insecure_setting(cluster: Cluster) -> None:
    """Require COORDINATOR_INSECURE without credentials."""
    refused = cluster.start("web", ["web", "--host", "0.0.0.0", "--port", "0"])
    assert refused.wait(30) == 2
    assert "COORDINATOR_AUTH=1" in refused.log()
    bound = cluster.start("web", ["web", "--host", "0.0.0.0", "--port", "0"], {"auth": 1})
    cluster.wait_until(bound, lambda: "http://0.0.0.0" in bound.log(), "served")


def test_key_use_is_recorded_outside_requests(cluster: Cluster, db: DbVerbs) -> None:
    """Write `last used` at most once a minute, in no caller's request."""
    url = cluster.start_web(auth=1).url
    token = make_key(db, Role.ADMIN)
    client = WebClient(url)
    assert client.http.get("/runs", headers=bearer(token)).status_code == 200

    def written() -> bool:
        (key,) = db.do(find_keys, [token[:16]])
        return getattr(key, "last_used_at", None) is not None

    eventually(written, 10, what="last_used_at")
    client.close()
