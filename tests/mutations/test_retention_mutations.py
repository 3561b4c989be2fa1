"""Break a mechanism of retention on purpose: the scenario that guards it must notice."""

import pytest
from sqlalchemy import text

from models.feed import retention
from tests.races import test_retention_races
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices
from tests.support.reports import finished
from tests.support.retention import all_grows_old, result, retire


def test_oldest_position_raised_in_another_transaction_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two transactions a reader would miss dropped events unknowingly."""
    monkeypatch.setattr(retention, "_RAISE_FLOOR", text("SELECT :upto"))
    notices(
        test_retention_races.test_page_read_while_events_are_dropped_is_complete_or_expired,
        db,
        by="missed events without a word",
    )


def results_outlive_events(db: DbVerbs) -> None:
    """Check that the newest result is kept, in whatever portions events are dropped."""
    session_id = finished(db)
    result(db, session_id, "first")
    result(db, session_id, "last")
    all_grows_old(db)
    retire(db, most=1)
    kept = db.rows("SELECT frame->'data'->>'result_text' AS text FROM kept_results")
    assert [one.text for one in kept] == ["last"], "the newest result is not kept"


def test_newest_result_is_kept_whatever_the_portions(db: DbVerbs) -> None:
    """Drop one event at a time."""
    results_outlive_events(db)


def test_kept_result_that_is_never_replaced_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the condition that a newer one exists, the first result would be kept for ever."""
    newer = """
      AND NOT EXISTS (SELECT 1 FROM events newer
                      WHERE newer.session_id = e.session_id AND newer.id > e.id
                        AND newer.event_type = 'result' AND newer.kind = 'event')"""
    replaced = (
        "UPDATE SET event_id = excluded.event_id, frame = excluded.frame\n    WHERE kept.event_id < excluded.event_id"
    )
    break_statement(monkeypatch, retention, "_KEEP_RESULTS", {newer: "", replaced: "NOTHING"})
    notices(results_outlive_events, db, by="the newest result is not kept")
