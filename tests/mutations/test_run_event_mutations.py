"""Break the mechanism that gives events to runs on purpose: the scenario that guards it must notice."""

import pytest

from models.feed import append
from models.runs import results
from tests.integration import test_run_event_bounds, test_run_events
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices


def test_event_given_to_run_in_hand_despite_its_token_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A late event of a former run would become the next run's."""
    chosen = "CASE WHEN i.claim_token IS NULL THEN coalesce(i.named_run, active.run_id) ELSE its.run_id END"
    break_statement(monkeypatch, append, "_APPEND", {chosen: "active.run_id"})
    notices(test_run_events.test_late_event_with_token_belongs_to_its_own_run, db, by="results of the wrong run")


def test_result_read_of_any_run_of_session_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run would show the former run's result."""
    break_statement(monkeypatch, results, "_NEWEST_OF_RUN", {"AND e.run_id = :run_id": ""})
    notices(test_run_events.test_late_event_with_token_belongs_to_its_own_run, db, by="results of the wrong run")


def test_uncounted_events_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch would count as the first."""
    count = "DO UPDATE SET events = c.events + excluded.events"
    break_statement(monkeypatch, append, "_APPEND_BOUNDED", {count: "DO NOTHING"})
    notices(test_run_event_bounds.bound_holds, db)
