"""Limits of writes: each write counts; beyond its limit it is refused with 429, or delayed for a runner."""

from collections.abc import Iterator
from typing import Any

import pytest

from app.auth.permissions import PERMISSIONS, Counted
from models.core.callers import Role
from runtime.settings import Settings
from tests.support.callers import AUTH_ON, client_with, make_key
from tests.support.db_verbs import DbVerbs
from tests.support.web import PROMPT, WebClient, WebInThread, served

FEW = {
    "submissions_per_minute": 2,
    "events_per_minute": 2,
    "changes_per_minute": 2,
    "registrations_per_minute": 2,
    "reports_per_minute": 2,
}
EVENT = {"event_type": "message", "session_id": "s", "timestamp": "t"}
BODIES: dict[Counted, dict[str, Any]] = {
    Counted.SUBMISSIONS: {"runs": [{"type": "start_session", "parameters": PROMPT}]},
    Counted.EVENTS: EVENT,
}
# A sign-in names its caller in the body.
SIGN_IN = "POST /console/session"
WRITES = sorted(name for name in PERMISSIONS if not name.startswith("GET ") and name != SIGN_IN)


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings.model_copy(update=AUTH_ON | FEW)) as web:
        yield web


def call(client: WebClient, name: str, body: Any) -> int:
    method, _, path = name.partition(" ")
    for part in ("run_id", "session_id", "runner_id", "key_id", "bulk_id"):
        path = path.replace(f"{{{part}}}", "s")
    return client.http.request(method, path, json=body).status_code


def codes_of_three(web: WebInThread, token: str, name: str) -> list[int]:
    counted = PERMISSIONS[name].counted
    assert counted is not None, name
    with client_with(web.client.url, token) as client:
        return [call(client, name, BODIES.get(counted, {})) for _ in range(3)]


def test_every_write_beyond_its_limit_is_refused(web: WebInThread, db: DbVerbs) -> None:
    """Check the limit before any other fault; another caller is unaffected."""
    found = {name: codes_of_three(web, make_key(db, Role.ADMIN), name) for name in WRITES}
    refused = {name: [code == 429 for code in codes] for name, codes in found.items()}
    assert refused == {name: [False, False, True] for name in WRITES}


def test_runner_writes_are_delayed_except_submissions(
    web: WebInThread, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delay them, since a deployed runner sends most of them once."""
    monkeypatch.setattr("app.auth.caller_limits.LONGEST_DELAY", 0.01)
    runs = [name for name in WRITES if PERMISSIONS[name].allows(Role.RUNNER)]
    found = {name: codes_of_three(web, make_key(db, Role.RUNNER, f"machine {name}"), name) for name in runs}
    refused = {name for name, codes in found.items() if 429 in codes}
    assert refused == {name for name in runs if PERMISSIONS[name].counted is Counted.SUBMISSIONS}
    assert len(runs) > 10


def test_sign_ins_count_as_changes_of_their_caller(web: WebInThread, db: DbVerbs) -> None:
    headers = {"X-Coordinator-Console": "1", "Sec-Fetch-Site": "same-origin"}
    for key in (make_key(db, Role.USER, "ann"), make_key(db, Role.USER, "bob")):
        codes = [web.client.http.post("/console/session", json={"api_key": key}, headers=headers) for _ in range(3)]
        assert [answer.status_code for answer in codes] == [200, 200, 429]


def test_bytes_of_events_are_counted_over_all_sessions_of_caller(settings: Settings, db: DbVerbs) -> None:
    """Send few large events and many small ones; the remainder below 64 KiB carries over to the next."""
    small = settings.model_copy(update=AUTH_ON | {"event_bytes_per_minute": 128 * 1024})
    with served(small) as web, client_with(web.client.url, make_key(db, Role.ADMIN)) as client:
        codes = [client.post(f"/sessions/s{n}/events", {"content": "x" * 40_000}).status_code for n in range(6)]
        assert codes == [422, 422, 422, 422, 429, 422]
        assert client.post("/sessions/s/events", {"content": "x" * 70_000}).status_code == 429


def test_nothing_is_counted_while_authentication_is_off(settings: Settings) -> None:
    with served(settings.model_copy(update=FEW)) as web:
        assert 429 not in [call(web.client, "POST /runner/heartbeat", {}) for _ in range(5)]
