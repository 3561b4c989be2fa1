"""Write events and number them."""

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, text

from models.core.ids import uuid7
from models.feed.sequence import sequence_feed
from models.state.events_outbox import EventRow
from runtime.postgres import LOCK_TIMEOUT, autocommit, sqlstate
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.db_verbs import DbVerbs


def row(number: int, session_id: str = "s") -> EventRow:
    return EventRow("event", session_id, f'{{"data":{{"content":{number}}}}}')


def single(number: int, session_id: str = "s") -> EventRow:
    """Build an event that is recorded as a row of its own and not in a batch, like those of clients."""
    return replace(row(number, session_id), event_uid=uuid7())


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
    while db.count(RECORDED_EVENTS, "feed_pos IS NULL"):
        number_events(db)


def assert_dense(db: DbVerbs) -> None:
    """Number all events, and check that every position above the oldest one up to the head exists once."""
    number_all(db)
    last, floor = db.rows("SELECT last_pos, floor FROM feed_head")[0]
    positions = [one.feed_pos for one in db.rows(f"SELECT feed_pos FROM {RECORDED_EVENTS} ORDER BY feed_pos")]
    assert positions == list(range(floor + 1, last + 1)), f"not every position between {floor} and {last} is there"


def execute(connection: Connection, statement: str, **values: Any) -> Any:
    """Execute any statement in the transaction of the connection."""
    return connection.execute(text(statement), values)
