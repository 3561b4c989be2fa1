"""Break one mechanism of authentication or permissions on purpose: its guard must notice."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy import text

import app.auth.authenticate
import app.auth.callers
import app.auth.known_keys
import app.auth.permissions
import models.auth.tickets
import models.claims.polls
import models.feed.append
import models.runners.heartbeat
import models.runners.register
import models.runs.lists
import models.runs.report
import models.runs.submission
import models.state.locks
import models.state.runs
import models.state.sessions
import runtime.tokens
from app.auth.callers import UNAUTHENTICATED_ADMIN, Credential
from models.core.callers import Role
from models.state.visibility import acts_for, can_view, owner_filter
from runtime.settings import Settings
from testkit.feed_follower import open_stream
from testkit.waiting import eventually
from tests.integration import test_takeover
from tests.support.callers import bearer, client_with, make_key, revoke
from tests.support.db_verbs import DbVerbs
from tests.support.issuer import forgeries, issuing
from tests.support.tenants import MARK, answers_as_for_unknown, tenants
from tests.support.web import WebInThread, served, until_ready


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings.model_copy(update={"auth": True})) as web:
        until_ready(web)
        yield web


@pytest.mark.parametrize(
    ("module", "asked", "name", "permissive"),
    [
        (models.state.sessions, can_view, "GET /sessions/{session_id}", True),
        (models.state.runs, can_view, "GET /runs/{run_id}", True),
        (models.feed.append, owner_filter, "POST /sessions/{session_id}/events", None),
        (models.runs.submission, can_view, "POST /runs", True),
        (models.state.locks, can_view, "POST /sessions/{session_id}/stop", True),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_verb_without_owner_check_is_noticed(
    web: WebInThread, db: DbVerbs, monkeypatch: pytest.MonkeyPatch, module: Any, asked: Any, name: str, permissive: Any
) -> None:
    """Each verb checks by itself."""
    with tenants(web.client.url, db) as both:
        answers_as_for_unknown(both.ann, name, both.bobs)
        assert getattr(module, asked.__name__) is asked
        monkeypatch.setattr(module, asked.__name__, lambda *_: permissive)
        with pytest.raises(AssertionError):
            answers_as_for_unknown(both.ann, name, both.bobs)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (models.claims.polls, "GET /runner/runs"),
        (models.runs.report, "POST /runner/runs/report"),
        (models.runners.heartbeat, "POST /runner/heartbeat"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_verb_without_runner_check_is_noticed(
    web: WebInThread, db: DbVerbs, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    """Runner ids are known to many."""
    with tenants(web.client.url, db) as both:
        answers_as_for_unknown(both.other, name, both.bobs)
        assert module.acts_for is acts_for
        monkeypatch.setattr(module, "acts_for", lambda *_: True)
        with pytest.raises(AssertionError, match="reveals that it exists"):
            answers_as_for_unknown(both.other, name, both.bobs)


BY_RUNNER_ID = text("""
    SELECT DISTINCT a.subject, a.session_id
    FROM unnest(CAST(:subjects AS text[]), CAST(:sessions AS text[])) AS a(subject, session_id)
    JOIN runs r ON r.session_id = a.session_id
    JOIN runners n ON n.runner_id = r.runner_id AND (n.owner IS NULL OR n.owner = a.subject)
""")


@pytest.mark.parametrize(
    ("name", "value", "attack"),
    [
        ("models.state.visibility._REACH", BY_RUNNER_ID, "GET /sessions/{session_id}"),
        ("models.state.visibility._REACH", BY_RUNNER_ID, "POST /sessions/{session_id}/events"),
        ("models.state.visibility._REACH", BY_RUNNER_ID, "DELETE /sessions/{session_id}"),
        ("models.runs.report.has_held", lambda *_: True, "POST /runner/runs/{run_id}/completed"),
        ("models.sessions.bind.is_visible", lambda *_: True, "POST /runner/sessions/{session_id}/status"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_comparing_runner_ids_instead_of_subjects_is_noticed(
    web: WebInThread, db: DbVerbs, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, attack: str
) -> None:
    """Once a departed runner is forgotten, any registration of its four values has its id."""
    with test_takeover.rivals(web.client.url, db) as both:
        db.rows("DELETE FROM runners")
        both.attack((attack,))
        db.rows("DELETE FROM runners")
        monkeypatch.setattr(name, value)
        with pytest.raises(AssertionError, match="reveals that it exists"):
            both.attack((attack,))


def test_identity_without_its_owner_is_noticed(web: WebInThread, db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first owner to register would keep the other one out."""
    with test_takeover.rivals(web.client.url, db) as both:
        both.attack(())
        monkeypatch.setattr(models.runners.register, "identity", lambda item, *_: item.runner_id)
        monkeypatch.setattr(models.runners.register, "is_open_to", lambda *_: True)
        with pytest.raises(AssertionError, match="duplicate_runner"):
            both.mallory.register(MARK, instance_id="third")


def test_list_without_owner_filter_is_noticed(web: WebInThread, db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    with tenants(web.client.url, db) as both:
        answers_as_for_unknown(both.ann, "GET /runs", both.bobs)
        # Create new keys each time, so that no cached result, good or bad, is used.
        monkeypatch.setattr(models.runs.lists, "page_statement", models.runs.lists.page_statement.__wrapped__)
        monkeypatch.setattr(models.runs.lists, "in_scope", lambda *_: None)
        with pytest.raises(AssertionError):
            answers_as_for_unknown(both.ann, "GET /runs", both.bobs)


def another_secret_is_refused(web: WebInThread, db: DbVerbs) -> None:
    """Refuse a key with the right readable part and another secret."""
    token = make_key(db, Role.ADMIN).rpartition("_")[0] + "_" + 64 * "0"
    assert web.client.http.get("/runs", headers=bearer(token)).status_code == 403


def test_uncompared_secret_is_noticed(web: WebInThread, db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key would be found by its prefix alone."""
    another_secret_is_refused(web, db)
    monkeypatch.setattr(app.auth.callers, "is_secret", lambda *_: True)
    with pytest.raises(AssertionError):
        another_secret_is_refused(web, db)


def revocation_ends_open_calls(web: WebInThread, db: DbVerbs) -> None:
    """Check new requests and an open stream."""
    token = make_key(db, Role.USER, "ann")
    with client_with(web.client.url, token) as ann, open_stream(ann.url, None, **bearer(token)) as stream:
        stream.until("init")
        revoke(db, token)
        eventually(lambda: ann.get("/runs").status_code == 403, 5, what="403")
        # Read to its end.
        list(stream.messages(within=5))


def test_unread_key_changes_are_noticed(web: WebInThread, db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process would keep trusting its cache."""
    revocation_ends_open_calls(web, db)

    async def read_nothing(_: object) -> None:
        pass

    monkeypatch.setattr(app.auth.known_keys.KnownKeys, "_read_again", read_nothing)
    with pytest.raises(AssertionError, match="403"):
        revocation_ends_open_calls(web, db)


def test_stream_left_open_after_revocation_is_noticed(
    web: WebInThread, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream was opened rightly and would run 10 minutes longer."""
    monkeypatch.setattr(app.auth.callers.Callers, "watching", lambda *_: nullcontext())
    with pytest.raises(AssertionError, match="no more than signs of life"):
        revocation_ends_open_calls(web, db)


def test_reusable_ticket_is_noticed(web: WebInThread, db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look the ticket up instead of deleting it."""
    kept = text("""
        SELECT t.ticket_hash, t.role, t.owner, t.key_id, t.session_hash, CAST(t.filters AS text) AS filters, true AS in_time,
            CAST(NULL AS float) AS lives_for
        FROM stream_tickets t WHERE t.ticket_hash = ANY(CAST(:hashes AS text[]))
    """)

    def opens_once() -> None:
        with client_with(web.client.url, make_key(db, Role.USER, "ann")) as ann:
            ticket = ann.post("/sse/ticket", {}).json()["ticket"]
        for code in (200, 403):
            with web.client.http.stream("GET", "/sse/sessions", params={"ticket": ticket}) as answer:
                assert answer.status_code == code

    opens_once()
    monkeypatch.setattr(models.auth.tickets, "_TAKE", kept)
    with pytest.raises(AssertionError):
        opens_once()


@pytest.mark.parametrize("claim", ["iat", "sub"])
def test_optional_token_claim_is_noticed(settings: Settings, monkeypatch: pytest.MonkeyPatch, claim: str) -> None:
    """The forged token without that claim passes."""
    monkeypatch.setattr(runtime.tokens, "REQUIRED", tuple(one for one in runtime.tokens.REQUIRED if one != claim))
    with issuing() as issuer:
        trusting = settings.model_copy(update=issuer.settings | {"oidc_owner_claim": "iss"})
        with served(trusting) as web:
            forged = bearer(forgeries(issuer)[f"without {claim}"])
            assert web.client.http.get("/runs", headers=forged).status_code == 200


def test_route_without_authentication_is_noticed(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Routes that need no caller authenticate all the same."""
    make_key(db, Role.ADMIN)

    async def admit_all(*_: object) -> Credential:
        return UNAUTHENTICATED_ADMIN

    monkeypatch.setattr(app.auth.authenticate.Authenticator, "authenticate", admit_all)
    with served(settings.model_copy(update={"auth": True})) as web:
        assert web.client.get("/scripts/none").status_code == 404


def test_ignored_permission_table_is_noticed(web: WebInThread, db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users see runners only if roles are ignored."""
    shown = bearer(make_key(db, Role.USER, "ann"))
    assert web.client.http.get("/runners", headers=shown).status_code == 403
    monkeypatch.setattr(app.auth.permissions.Permission, "allows", lambda *_: True)
    assert web.client.http.get("/runners", headers=shown).status_code == 200
