"""Break one mechanism of callbacks on purpose: the scenario that guards "each child is told once" must notice."""

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import Connection, text

from models.callbacks import resume_parents
from models.state import child_results
from models.state.try_locks import try_lock_runs
from tests.races import test_callback_races
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices


def test_unlocked_parents_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two actors that read the same results would both deliver them."""

    def trust(_: Connection, seen: Mapping[str, Any]) -> dict[str, Any]:
        return dict(seen)

    monkeypatch.setattr(resume_parents, "_lock_parents", trust)
    notices(test_callback_races.test_two_actors_tell_each_child_once, db, "after ")


def test_parents_not_reread_under_their_locks_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows may have changed between the search and the lock."""

    def lock_only(conn: Connection, seen: Mapping[str, Any]) -> dict[str, Any]:
        held = try_lock_runs(conn, session_ids=seen)
        return {one: seen[one] for one in held.sessions}

    monkeypatch.setattr(resume_parents, "_lock_parents", lock_only)
    notices(test_callback_races.test_parent_that_became_busy_is_skipped, db, "a busy parent was resumed")


def test_reading_delivered_results_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run would carry results that an earlier run delivered."""
    break_statement(monkeypatch, resume_parents, "_WAITING", {" AND c.delivered_in IS NULL": ""})
    notices(test_callback_races.test_delivered_result_is_not_delivered_again, db, "after ")


def test_unrecorded_delivery_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run exists and its result still waits."""
    monkeypatch.setattr(resume_parents, "_DELIVERED", text("SELECT CAST(:children AS text[]), CAST(:runs AS text[])"))
    notices(test_callback_races.test_delivered_result_is_not_delivered_again, db, "after ")


def test_results_lost_with_a_cancelled_run_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_results, "_GIVE_BACK", text("SELECT CAST(:runs AS text[])"))
    notices(test_callback_races.test_cancelled_run_returns_its_results, db, "lost with the run")


def test_results_kept_for_a_deleted_parent_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that reuses a deleted parent's id would be told of children that are not its own."""
    break_statement(monkeypatch, resume_parents, "_DUE", {"s.incarnation = w.parent_incarnation AND ": ""})
    break_statement(monkeypatch, resume_parents, "_WAITING", {" AND c.parent_incarnation = s.incarnation": ""})
    notices(test_callback_races.test_deleted_parents_children_are_told_to_no_session, db, "after ")
