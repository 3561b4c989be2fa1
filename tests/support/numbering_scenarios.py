"""Scenarios of the feed's order, each with its check: unbroken, and with a part of the mechanism broken."""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from sqlalchemy import Connection, text

from models.core.callers import ADMIN
from models.core.ids import uuid7
from models.feed.append import NewEvent, append_events
from models.feed.pages import FeedEvent, read_feed
from models.feed.sequence import sequence_feed
from models.state.events_outbox import EventRow, record_events
from runtime.postgres import LOCK_TIMEOUT, autocommit, sqlstate
from tests.support.contenders import run_in_threads, steppers
from tests.support.db_verbs import DbVerbs
from tests.support.feed_follower import ledger, sent_data


def row(number: int, session_id: str = "s") -> EventRow:
    return EventRow("event", session_id, f'{{"data":{{"content":{number}}}}}', event_uid=uuid7())


def number_events(db: DbVerbs) -> int:
    """Run one pass of numbering in autocommit; return 0 after a lock timeout."""
    try:
        with autocommit(db.engine) as connection:
            return sequence_feed(connection)
    except Exception as fault:
        if sqlstate(fault) == LOCK_TIMEOUT:
            return 0
        raise


def number_all(db: DbVerbs) -> None:
    while db.count("events", "feed_pos IS NULL"):
        number_events(db)


def assert_dense(db: DbVerbs) -> None:
    """Number all events, and check that every position above the oldest one up to the head exists once."""
    number_all(db)
    last, floor = db.rows("SELECT last_pos, floor FROM feed_head")[0]
    positions = [one.feed_pos for one in db.rows("SELECT feed_pos FROM events ORDER BY feed_pos")]
    assert positions == list(range(floor + 1, last + 1)), f"not every position between {floor} and {last} is there"


def event_deleted_while_it_is_numbered(db: DbVerbs) -> None:
    """Leave no hole for an event deleted before it had a position, in either order."""
    db.do(record_events, [row(one) for one in range(10)])
    victim = db.one("SELECT min(id) + 4 FROM events")
    with steppers(db.engine, 2) as (deleter, numberer):
        deleter.do(execute, "DELETE FROM events WHERE id = :id", id=victim)
        numbering = numberer.do(sequence_feed)
        assert numberer.waits, "numbering goes on over a row that is being deleted"
        deleter.commit()
        assert numbering.result(10) == 9
        numberer.commit()
    assert_dense(db)


def event_that_commits_late(db: DbVerbs) -> None:
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
        self._truth = db
        self._at = 0

    def read(self, limit: int = 1000) -> None:
        more = True
        while more:
            page = self._truth.do(read_feed, self._at, limit=limit)
            self.seen += page.events
            self._at = page.covers
            more = page.covers < page.head.position

    @property
    def told(self) -> list[tuple[int, str, str]]:
        """Return position, name and data of what a client is sent of it, as in the ledger."""
        return [(one.position, one.kind, sent_data(one)) for one in self.seen]


def writers_deleters_and_retention(db: DbVerbs, each: int, seed: int) -> None:
    """Run them together with as many that number: the positions have no unexplained hole."""
    sessions = [db.start(session_id=f"s{place}").session_id for place in range(4)]
    roles: list[Callable[[Random], None]] = [
        lambda _: _number_once(db),
        lambda random: _write(db, random, sessions),
        lambda random: _delete_unnumbered(db, random),
        lambda random: _retire(db, random),
    ]
    _all_at_once([role for role in roles for _ in range(each)], seed)
    assert_dense(db)


def writers_and_readers(db: DbVerbs, each: int, seed: int) -> None:
    """Run them together with as many that number: every reader sees each event once and in order."""
    sessions = [db.start(session_id=f"s{place}").session_id for place in range(4)]
    readers = [Reader(db) for _ in range(each)]
    roles: list[Callable[[Random], None]] = [
        *[lambda _: _number_once(db)] * each,
        *[lambda random: _write(db, random, sessions)] * each,
        *[partial(_read_some, reader) for reader in readers],
    ]
    _all_at_once(roles, seed)
    assert_dense(db)
    history = ledger(db.engine, where="true")
    for reader in readers:
        reader.read()
        assert reader.told == history


def _all_at_once(roles: Sequence[Callable[[Random], None]], seed: int) -> None:
    def play(place: int) -> None:
        random = Random(seed * 1000 + place)
        for _ in range(20):
            roles[place](random)

    run_in_threads(len(roles), play)


def _number_once(db: DbVerbs) -> None:
    number_events(db)


def _read_some(reader: Reader, random: Random) -> None:
    reader.read(random.randint(1, 50))


def _write(db: DbVerbs, random: Random, sessions: Sequence[str]) -> None:
    items = [NewEvent(random.choice(sessions), ADMIN, "message", '{"data":{}}') for _ in range(random.randint(1, 20))]
    connection = db.engine.connect()
    with connection, connection.begin() as transaction:
        append_events(connection, items)
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


def execute(connection: Connection, statement: str, **values: Any) -> Any:
    """Execute any statement in the transaction of the connection."""
    return connection.execute(text(statement), values)
