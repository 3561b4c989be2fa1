"""Check promise 3 under concurrency: positions are dense and given once, and readers see all events in order."""

import pytest
from sqlalchemy import create_engine

from models.feed.sequence import lower_numbering_watermark, sequence_feed
from models.state.events_outbox import record_events
from tests.support import numbering_scenarios
from tests.support.clocks import pass_time
from tests.support.contenders import steppers
from tests.support.db_verbs import DbVerbs
from tests.support.servers import OwnPostgres
from tests.support.simultaneous_calls import call_together

CROWDS = [2, 8, 32]


def test_event_deleted_while_it_is_numbered_leaves_no_hole(db: DbVerbs) -> None:
    """Numbering waits for the delete, or the delete for numbering."""
    numbering_scenarios.event_deleted_while_it_is_numbered(db)


def test_event_that_commits_late_is_read_late(db: DbVerbs) -> None:
    """Its id is smaller than ids read before it; its position is not."""
    numbering_scenarios.event_that_commits_late(db)


@pytest.mark.parametrize("each", [1, 2, 6])
def test_writers_deleters_and_retention_leave_no_hole(db: DbVerbs, each: int) -> None:
    """Find each position above the oldest one exactly once."""
    numbering_scenarios.writers_deleters_and_retention(db, each, seed=each)


@pytest.mark.parametrize("each", [1, 3, 8])
def test_readers_see_the_whole_history_beside_concurrent_writers(db: DbVerbs, each: int) -> None:
    """Let writers commit, roll back and overtake each other, and several processes number."""
    numbering_scenarios.writers_and_readers(db, each, seed=each)


@pytest.mark.parametrize("crowd", CROWDS)
def test_concurrent_passes_number_each_event_once(db: DbVerbs, crowd: int) -> None:
    """Passes take turns; together they number everything."""
    db.do(record_events, [numbering_scenarios.row(place) for place in range(2500)])
    counted = sum(call_together([lambda: numbering_scenarios.number_events(db)] * crowd))
    while numbered := numbering_scenarios.number_events(db):
        counted += numbered
    assert counted == 2500
    numbering_scenarios.assert_dense(db)
    rows = db.rows("SELECT id FROM events ORDER BY feed_pos")
    assert [row.id for row in rows] == sorted(row.id for row in rows)


def test_numbering_watermark_hides_no_late_event(db: DbVerbs) -> None:
    """An event in flight for a while is above the watermark; only later does the watermark pass its id."""
    with steppers(db.engine, 1) as (slow,):
        slow.do(record_events, [numbering_scenarios.row(0)])
        db.do(record_events, [numbering_scenarios.row(1)])
        pass_time(db, "feed_head", "floors_moved_at", 21)
        assert numbering_scenarios.number_events(db) == 1
        assert db.one("SELECT numbered_below FROM feed_head") == 0
        slow.commit()
    assert numbering_scenarios.number_events(db) == 1
    assert db.one("SELECT next_floor FROM feed_head") == db.one("SELECT max(id) FROM events")
    pass_time(db, "feed_head", "floors_moved_at", 21)
    db.do(record_events, [numbering_scenarios.row(2)])
    numbering_scenarios.assert_dense(db)
    assert db.one("SELECT numbered_below FROM feed_head") == db.one("SELECT max(id) - 1 FROM events")


def test_event_committed_below_the_watermark_is_numbered(db: DbVerbs) -> None:
    """A transaction lived longer than any of ours: the watermark goes down to its event."""
    with steppers(db.engine, 1) as (slow,):
        slow.do(record_events, [numbering_scenarios.row(0)])
        for number in (1, 2):
            db.do(record_events, [numbering_scenarios.row(number)])
            pass_time(db, "feed_head", "floors_moved_at", 21)
            numbering_scenarios.number_events(db)
        assert db.do(lower_numbering_watermark) is False
        slow.commit()
    db.do(record_events, [numbering_scenarios.row(3)])
    assert numbering_scenarios.number_events(db) == 1
    assert db.count("events", "feed_pos IS NULL") == 1
    assert db.do(lower_numbering_watermark) is True
    numbering_scenarios.assert_dense(db)
    assert db.do(lower_numbering_watermark) is False


def test_wait_for_the_locked_head_is_bounded(db: DbVerbs) -> None:
    """A frozen process may hold the lock; the next pass tries again, and nothing is lost."""
    db.do(record_events, [numbering_scenarios.row(0)])
    with steppers(db.engine, 1) as (holder,):
        holder.do(numbering_scenarios.execute, "SELECT 1 FROM feed_head FOR UPDATE")
        assert numbering_scenarios.number_events(db) == 0
    numbering_scenarios.assert_dense(db)


def test_open_and_prepared_transactions_do_not_delay_other_events(own_postgres: OwnPostgres) -> None:
    """Number their events when they commit."""
    db = DbVerbs(create_engine(own_postgres.url.replace("postgresql://", "postgresql+psycopg://", 1), pool_size=8))
    with steppers(db.engine, 2) as (idle, prepared):
        idle.do(record_events, [numbering_scenarios.row(0)])
        prepared.do(record_events, [numbering_scenarios.row(1)])
        prepared.do(numbering_scenarios.execute, "PREPARE TRANSACTION 'held'")
        db.do(record_events, [numbering_scenarios.row(2)])
        assert db.do(sequence_feed) == 1
        idle.commit()
    assert db.do(sequence_feed) == 1
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        numbering_scenarios.execute(connection, "COMMIT PREPARED 'held'")
    numbering_scenarios.assert_dense(db)
    assert [row.id for row in db.rows("SELECT id FROM events ORDER BY feed_pos")] == [3, 1, 2]
    db.engine.dispose()
