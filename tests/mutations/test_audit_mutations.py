"""Break one mechanism of the audit log on purpose: the scenario that guards it must notice."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from sqlalchemy import Connection

import app.routes.feed
import models.auth.audit
import models.auth.keys
import models.runs.stop
from app.routes.feed import KINDS_FOR_ADMINS
from models.auth.audit import AuditedAct, record_acts
from models.runs.stop import OpenStop, open_stops
from models.state.events_outbox import EventRow, record_events
from runtime.settings import Settings
from tests.integration import test_audit
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement
from tests.support.web import WebInThread, served, until_ready


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings.model_copy(update={"auth": True})) as web:
        until_ready(web)
        yield web


def test_audit_filter_open_to_users_is_noticed(web: WebInThread, db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The filter by owner would still hold, but must not be the only guard."""
    test_audit.test_user_naming_audit_event_is_refused_like_unknown_name(web, db, "audit")
    monkeypatch.setattr(app.routes.feed, "_kinds_of", lambda _: KINDS_FOR_ADMINS)
    with pytest.raises(AssertionError):
        test_audit.test_user_naming_audit_event_is_refused_like_unknown_name(web, db, "audit")


def test_audit_event_with_an_owner_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that belong to a user pass that user's filter."""

    def theirs(conn: Connection, rows: Sequence[EventRow]) -> None:
        record_events(conn, [replace(row, owner="bob") for row in rows])

    monkeypatch.setattr(models.auth.audit, "record_events", theirs)
    with pytest.raises(AssertionError, match="has an owner"):
        test_audit.test_admin_stops_and_deletes_of_other_owners_are_logged_once(db)


def test_repeated_stop_audited_again_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients repeat stops until the run has stopped."""

    def always_new(conn: Connection, stops: Sequence[OpenStop]) -> dict[str, frozenset[str]]:
        open_stops(conn, stops)
        return {stop.session_id: frozenset() for stop in stops}

    monkeypatch.setattr(models.runs.stop, "open_stops", always_new)
    with pytest.raises(AssertionError):
        test_audit.test_admin_stops_and_deletes_of_other_owners_are_logged_once(db)


def test_repeated_revocation_audited_again_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment from which the key was worthless would move too."""
    break_statement(monkeypatch, models.auth.keys, "_REVOKE", {" AND revoked_at IS NULL": ""})
    with pytest.raises(AssertionError):
        test_audit.test_key_leaves_one_row_when_made_and_one_when_revoked(db)


def test_audit_row_in_a_separate_transaction_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log would hold acts that never happened."""

    def elsewhere(_: Connection, acts: Sequence[AuditedAct]) -> None:
        db.do(record_acts, acts)

    monkeypatch.setattr(models.auth.keys, "record_acts", elsewhere)
    with pytest.raises(AssertionError):
        test_audit.test_rolled_back_act_leaves_no_row(db)
