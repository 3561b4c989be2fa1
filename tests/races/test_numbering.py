"""Check promise 3 under concurrency: positions are dense and given once, and readers see all events in order."""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random

import pytest
from sqlalchemy import create_engine

from models.core.callers import ADMIN
from models.feed.append import NewEvent, append_events
from models.feed.pages import FeedEvent, read_feed
from models.feed.sequence import lower_numbering_watermark, sequence_feed
from models.state.events_outbox import record_events
from testkit.feed_follower import ledger, sent_data
from testkit.recorded_events import RECORDED_EVENTS
from testkit.servers import OwnPostgres
from tests.support.clocks import pass_time
from tests.support.contenders import run_in_threads, steppers
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import assert_dense, execute, number_events, row, single
from tests.support.simultaneous_calls import call_together


def test_event_deleted_while_it_is_numbered_leaves_no_hole(db: DbVerbs) -> None:
    """Leave no hole for an event deleted before it had a position, in either order."""
    db.do(record_events, [single(one) for one in range(10)])
    victim = db.one("SELECT min(id) + 4 FROM events")
    with steppers(db.engine, 2) as (deleter, numberer):
        deleter.do(execute, "DELETE FROM events WHERE id = :id", id=victim)
        numbering = numberer.do(sequence_feed)
        assert numberer.waits, "numbering goes on over a row that is being deleted"
        deleter.commit()
        assert numbering.result(30) == 9
        numberer.commit()
    assert_dense(db)


def test_event_that_commits_late_is_read_late(db: DbVerbs) -> None:
    """Show readers an event whose id is smaller than one that was numbered and read before it."""
    reader = Reader(db)
    with steppers(db.engine, 2) as (early, late):
        late.do(record_events, [row(1)])
        early.do(record_events, [row(2)])
        early.commit()
        number_events(db)
        reader.read()
        late.commit()
    number_events(db)
    reader.read()
    assert reader.told == ledger(db.engine, where="true"), "a reader missed an event"


class Reader:
    """Reader of the feed like a web process: it reads what is behind its position."""

    def __init__(self, db: DbVerbs) -> None:
        self.seen: list[FeedEvent] = []
        self._db = db
        self._at = 0

    def read(self, limit: int = 1000) -> None:
        more = True
        while more:
            page = self._db.do(read_feed, self._at, limit=limit)
            self.seen += page.events
            self._at = page.covers
            more = page.covers < page.head.position

    @property
    def told(self) -> list[tuple[int, str, str]]:
        """Return position, name and data of what a client is sent of it, as in the ledger."""
        return [(one.position, one.kind, sent_data(one)) for one in self.seen]


@pytest.mark.parametrize("each", [1, 2, 6])
def test_writers_deleters_and_retention_leave_no_hole(db: DbVerbs, each: int) -> None:
    """Run them together with as many that number: the positions have no unexplained hole."""
    sessions = [db.start(session_id=f"s{place}").session_id for place in range(4)]
    roles: list[Callable[[Random], object]] = [
        lambda _: number_events(db),
        lambda random: _write(db, random, sessions),
        lambda random: _record(db, random),
        lambda random: _delete_unnumbered(db, random),
        lambda random: _retire(db, random),
    ]
    _all_at_once([role for role in roles for _ in range(each)], seed=each)
    assert_dense(db)


@pytest.mark.parametrize("each", [1, 3, 8])
def test_readers_see_the_whole_history_beside_concurrent_writers(db: DbVerbs, each: int) -> None:
    """Run them together with as many that number: every reader sees each event once and in order."""
    sessions = [db.start(session_id=f"s{place}").session_id for place in range(4)]
    readers = [Reader(db) for _ in range(each)]
    roles: list[Callable[[Random], object]] = [
        *[lambda _: number_events(db)] * each,
        *[lambda random: _write(db, random, sessions)] * each,
        *[lambda random: _record(db, random)] * each,
        *[partial(_read_some, reader) for reader in readers],
    ]
    _all_at_once(roles, seed=each)
    assert_dense(db)
    history = ledger(db.engine, where="true")
    for reader in readers:
        reader.read()
        assert reader.told == history


def _all_at_once(roles: Sequence[Callable[[Random], object]], seed: int) -> None:
    def play(place: int) -> None:
        random = Random(seed * 1000 + place)
        for _ in range(20):
            roles[place](random)

    run_in_threads(len(roles), play)


def _read_some(reader: Reader, random: Random) -> None:
    reader.read(random.randint(1, 50))


def _write(db: DbVerbs, random: Random, sessions: Sequence[str]) -> None:
    items = [NewEvent(random.choice(sessions), ADMIN, "message", '{"data":{}}') for _ in range(random.randint(1, 20))]
    connection = db.engine.connect()
    with connection, connection.begin() as transaction:
        append_events(connection, items)
        if random.random() < 0.3:
            transaction.rollback()


def _record(db: DbVerbs, random: Random) -> None:
    connection = db.engine.connect()
    with connection, connection.begin() as transaction:
        record_events(connection, [row(place) for place in range(random.randint(1, 20))])
        if random.random() < 0.3:
            transaction.rollback()


def _delete_unnumbered(db: DbVerbs, random: Random) -> None:
    db.rows(
        "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE feed_pos IS NULL ORDER BY id DESC LIMIT :most "
        "FOR UPDATE SKIP LOCKED)",
        most=random.randint(1, 3),
    )


def _retire(db: DbVerbs, random: Random) -> None:
    """Drop a prefix of the history as retention does: rows and oldest position in one transaction."""
    with db.engine.begin() as connection:
        floor = execute(connection, "SELECT floor FROM feed_head FOR UPDATE").scalar_one()
        last = execute(connection, "SELECT last_pos FROM feed_head").scalar_one()
        upto = min(last, floor + random.randint(0, 5))
        execute(connection, "DELETE FROM events WHERE feed_pos <= :upto", upto=upto)
        execute(connection, "UPDATE feed_head SET floor = :upto", upto=upto)


CROWDS = [2, 8, 32]


@pytest.mark.parametrize("crowd", CROWDS)
def test_concurrent_passes_number_each_event_once(db: DbVerbs, crowd: int) -> None:
    """Passes take turns; together they number everything: 250 batches, of which a pass takes a hundred."""
    for first in range(0, 2500, 10):
        db.do(record_events, [row(first + place) for place in range(10)])
    counted = sum(call_together([lambda: number_events(db)] * crowd))
    while numbered := number_events(db):
        counted += numbered
    assert counted == 2500
    assert_dense(db)
    rows = db.rows("SELECT id FROM events ORDER BY feed_pos")
    assert [row.id for row in rows] == sorted(row.id for row in rows)


def test_numbering_watermark_hides_no_late_event(db: DbVerbs) -> None:
    """An event in flight for a while is above the watermark; only later does the watermark pass its id."""
    with steppers(db.engine, 1) as (slow,):
        slow.do(record_events, [row(0)])
        db.do(record_events, [row(1)])
        pass_time(db, "feed_head", "floors_moved_at", 21)
        assert number_events(db) == 1
        assert db.one("SELECT numbered_below FROM feed_head") == 0
        slow.commit()
    assert number_events(db) == 1
    assert db.one("SELECT next_floor FROM feed_head") == db.one("SELECT max(id) FROM events")
    pass_time(db, "feed_head", "floors_moved_at", 21)
    db.do(record_events, [row(2)])
    assert_dense(db)
    assert db.one("SELECT numbered_below FROM feed_head") == db.one("SELECT max(id) - 1 FROM events")


def test_event_committed_below_the_watermark_is_numbered(db: DbVerbs) -> None:
    """A transaction lived longer than any of ours: the watermark goes down to its event."""
    with steppers(db.engine, 1) as (slow,):
        slow.do(record_events, [row(0)])
        for number in (1, 2):
            db.do(record_events, [row(number)])
            pass_time(db, "feed_head", "floors_moved_at", 21)
            number_events(db)
        assert db.do(lower_numbering_watermark) is False
        slow.commit()
    db.do(record_events, [row(3)])
    assert number_events(db) == 1
    assert db.count(RECORDED_EVENTS, "feed_pos IS NULL") == 1
    assert db.do(lower_numbering_watermark) is True
    assert_dense(db)
    assert db.do(lower_numbering_watermark) is False


def test_wait_for_the_locked_head_is_bounded(db: DbVerbs) -> None:
    """A frozen process may hold the lock; the next pass tries again, and nothing is lost."""
    db.do(record_events, [row(0)])
    with steppers(db.engine, 1) as (holder,):
        holder.do(execute, "SELECT 1 FROM feed_head FOR UPDATE")
        assert number_events(db) == 0
    assert_dense(db)


def test_open_and_prepared_transactions_do_not_delay_other_events(own_postgres: OwnPostgres) -> None:
    """Number their events when they commit."""
    db = DbVerbs(create_engine(own_postgres.url.replace("postgresql://", "postgresql+psycopg://", 1), pool_size=8))
    with steppers(db.engine, 2) as (idle, prepared):
        idle.do(record_events, [row(0)])
        prepared.do(record_events, [row(1)])
        prepared.do(execute, "PREPARE TRANSACTION 'held'")
        db.do(record_events, [row(2)])
        assert db.do(sequence_feed) == 1
        idle.commit()
    assert db.do(sequence_feed) == 1
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        execute(connection, "COMMIT PREPARED 'held'")
    assert_dense(db)
    assert [row.id for row in db.rows("SELECT id FROM events ORDER BY feed_pos")] == [3, 1, 2]
    db.engine.dispose()
