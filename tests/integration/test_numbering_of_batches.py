"""Numbering of batches: whole, in one order of ids with the events that are rows of their own."""

from collections.abc import Sequence

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from models.core.callers import ADMIN
from models.feed.append import NewEvent, append_events
from models.feed.sequence import read_head_and_overdue
from models.feed.state import feed_state
from models.feed.timeline import Event, EventPage, list_events
from models.runs.delete import DeleteSession, delete_sessions, purge_deleted
from models.state.events_outbox import record_events
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import assert_dense, number_all, number_events, row, single
from tests.support.reports import accepted, running


def numbered(db: DbVerbs) -> list[int]:
    """Return the contents of the events that have positions, in their order."""
    return [int(one.content) for one in db.rows(_CONTENTS)]


_CONTENTS = "SELECT frame->'data'->>'content' AS content FROM events WHERE feed_pos IS NOT NULL ORDER BY feed_pos"


def number(db: DbVerbs, limit: int) -> int:
    return int(db.one("SELECT sequence_feed(:most)", most=limit))


def test_batches_and_single_events_are_numbered_in_one_order(db: DbVerbs) -> None:
    db.do(record_events, [row(0), row(1)])
    db.do(record_events, [single(2)])
    db.do(record_events, [row(3)])
    db.do(record_events, [single(4), single(5)])
    db.do(record_events, [row(6), row(7), row(8)])

    assert number_events(db) == 9
    assert numbered(db) == list(range(9))
    assert db.count("unnumbered_batches") == 0
    assert db.rows("SELECT id FROM events ORDER BY feed_pos") == db.rows("SELECT id FROM events ORDER BY id")


def test_pass_numbers_the_last_batch_wholly(db: DbVerbs) -> None:
    for first in range(0, 12, 3):
        db.do(record_events, [row(first), row(first + 1), row(first + 2)])

    assert number(db, 4) == 6
    assert numbered(db) == list(range(6))
    assert number(db, 6) == 6
    assert numbered(db) == list(range(12))
    assert_dense(db)


def test_limited_pass_leaves_what_stands_behind(db: DbVerbs) -> None:
    """Take the oldest, of whichever kind."""
    db.do(record_events, [row(0), row(1)])
    db.do(record_events, [single(2)])
    db.do(record_events, [row(3), row(4)])
    db.do(record_events, [single(5)])

    assert number(db, 3) == 3
    assert numbered(db) == [0, 1, 2]
    assert number(db, 1) == 2
    assert numbered(db) == [0, 1, 2, 3, 4]
    assert number(db, 1) == 1
    assert number(db, 1) == 0
    assert_dense(db)


def test_numbered_event_is_as_it_was_recorded(db: DbVerbs) -> None:
    run = running(db)
    before = _shown(db, run.session_id)
    number_all(db)

    assert [(event.id, event.frame, event.run_id) for event in before] == [
        (event.id, event.frame, event.run_id) for event in _shown(db, run.session_id)
    ]
    assert db.count("events", "event_uid IS NOT NULL") == 0


def _shown(db: DbVerbs, session_id: str, limit: int | None = None, after: str | None = None) -> Sequence[Event]:
    page = db.do(list_events, ADMIN, session_id, limit=limit, after=after)
    assert isinstance(page, EventPage)
    return page.events


def test_timeline_shows_events_that_wait_in_batches(db: DbVerbs) -> None:
    """Show them at once after the commit, behind those with positions, to readers of pages on the last page."""
    run = running(db)
    db.do(append_events, [NewEvent(run.session_id, ADMIN, "message", '{"data":{}}')])
    number_all(db)
    accepted(db, run, "completed")

    shown = _shown(db, run.session_id)
    assert [event.feed_cursor is None for event in shown] == [False, False, True]
    assert [event.id for event in shown] == sorted(event.id for event in shown)
    first = _shown(db, run.session_id, 1)
    assert first == shown[:1]
    assert _shown(db, run.session_id, 1, first[-1].feed_cursor) == shown[1:]
    number_all(db)
    assert [event.id for event in _shown(db, run.session_id)] == [event.id for event in shown]


def test_waiting_batch_of_a_deleted_session_leaves_nothing(db: DbVerbs) -> None:
    """Keep the record of the delete until the batch is numbered and its events are removed."""
    run = running(db)
    accepted(db, run, "completed", session_status="finished")
    db.do(delete_sessions, [DeleteSession(ADMIN, run.session_id)])
    db.rows("UPDATE deleted_sessions SET deleted_at = now() - interval '2 minutes'")
    assert db.do(purge_deleted, 100) == 0
    assert db.count("deleted_sessions") == 1
    number_all(db)
    db.do(purge_deleted, 100)
    assert db.told_kinds(run.session_id) == ["session_deleted"]
    assert db.count("deleted_sessions") == 0


def test_waiting_batch_is_counted_and_becomes_overdue(db: DbVerbs) -> None:
    db.do(record_events, [row(0), row(1)])
    db.do(record_events, [single(2)])
    assert db.do(feed_state).unnumbered == 3
    assert db.do(read_head_and_overdue, 60)[1] is False
    db.rows("UPDATE unnumbered_batches SET created_at = now() - interval '2 minutes'")
    assert db.do(read_head_and_overdue, 60)[1] is True
    number_all(db)
    assert db.do(feed_state).unnumbered == 0
    assert db.do(read_head_and_overdue, 60)[1] is False


@pytest.mark.parametrize(
    "fault",
    [
        "kinds = ARRAY[NULL]",
        "kinds = ARRAY['event', 'event']",
        "session_ids = '{}'",
        "frames = CAST(ARRAY[NULL] AS json[])",
        "owners = '{}'",
        "run_ids = '{}'",
        "event_types = '{}'",
        "ids = ARRAY[first_id + 1]",
        "ids = ARRAY[first_id, NULL]",
    ],
)
def test_batch_that_could_not_be_numbered_is_refused(db: DbVerbs, fault: str) -> None:
    """Numbering it would fail, again and again, and stop the feed for all clients."""
    db.do(record_events, [row(0)])
    with pytest.raises(IntegrityError, match="complete"):
        db.rows(f"UPDATE unnumbered_batches SET {fault}")


def test_rolled_back_pass_loses_nothing(db: DbVerbs) -> None:
    def cut_off(connection: Connection) -> None:
        connection.execute(text("SELECT sequence_feed()"))
        connection.rollback()

    db.do(record_events, [row(0), row(1)])
    db.do(cut_off)
    assert numbered(db) == []
    number_all(db)
    assert numbered(db) == [0, 1]
    assert_dense(db)
