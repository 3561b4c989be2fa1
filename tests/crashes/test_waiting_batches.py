"""Events that are committed and not numbered survive the end of Postgres and of the process that numbers."""

import json
from contextlib import suppress

from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError

from models.feed.sequence import sequence_feed
from models.state.events_outbox import record_events
from testkit.feed_follower import ledger
from testkit.servers import OwnPostgres
from tests.support.db_verbs import DbVerbs, backend
from tests.support.numbering import assert_dense, number_all, row, single


def test_waiting_batches_survive_a_crash_of_postgres(own_postgres: OwnPostgres) -> None:
    db = DbVerbs(create_engine(own_postgres.url.replace("postgresql://", "postgresql+psycopg://", 1)))
    db.do(record_events, [row(0), row(1)])
    db.do(record_events, [single(2)])
    number_all(db)
    db.do(record_events, [row(3), row(4)])
    db.do(record_events, [single(5)])
    own_postgres.kill()
    db.engine.dispose()
    own_postgres.start()

    assert db.count("unnumbered_batches") == 1
    assert_dense(db)
    contents = [json.loads(data)["data"]["content"] for _, _, data in ledger(db.engine, where="true")]
    assert contents == list(range(6))
    db.engine.dispose()


def test_batches_of_a_killed_numbering_are_numbered_by_the_next(db: DbVerbs) -> None:
    """End its backend when it has deleted the batches and inserted their events."""
    db.do(record_events, [row(0), row(1)])
    with suppress(DBAPIError), db.engine.connect() as numberer:
        assert sequence_feed(numberer) == 2
        db.rows("SELECT pg_terminate_backend(:pid, 10000)", pid=backend(numberer))
        numberer.commit()
    assert db.count("events") == 0
    assert db.count("unnumbered_batches") == 1
    assert_dense(db)
    assert db.count("events") == 2
