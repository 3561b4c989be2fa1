"""Break one mechanism of the registries on purpose: the test that guards it must notice."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from models.registries import imports, write
from models.registries.records import Kind
from tests.integration import test_config_archives as archives
from tests.integration import test_http_capabilities as cases
from tests.races import test_registry_races as races
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices
from tests.support.web import WebClient


def test_writes_that_do_not_wait_for_each_other_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_LOCK", text("SELECT 1"))
    notices(
        lambda db: races.test_entry_is_deleted_only_while_no_agent_names_it(db, Kind.SCRIPT, "script", "x", "agent"), db
    )


def test_creations_that_do_not_wait_for_each_other_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_LOCK", text("SELECT 1"))
    with pytest.raises(IntegrityError, match="pk_registry_entries"):
        races.test_creation_waits_for_an_earlier_one(db, "commit")


def test_changes_into_what_was_read_before_the_lock_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Merge into the row as it was before the other's commit."""
    monkeypatch.setattr(write, "_LOCK", text("SELECT 1"))
    break_statement(monkeypatch, write, "_READ", {"FOR UPDATE": ""})
    notices(races.test_concurrent_changes_of_different_fields_both_survive, db)


def test_imports_that_do_not_wait_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "lock_registries", lambda _: None)
    notices(races.test_import_and_change_wait_for_each_other, db)


def test_deletion_of_a_named_capability_is_noticed(client: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_REFERRING", {})
    with pytest.raises(AssertionError):
        cases.test_entries_that_agents_name_are_kept(client)


def test_import_that_keeps_other_entries_is_noticed(client: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    break_statement(monkeypatch, imports, "_REMOVE", {"e.kind = d.kind": "false"})
    with pytest.raises(AssertionError):
        archives.test_export_and_import_replace_agents_and_capabilities(client)
