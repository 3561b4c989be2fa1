"""Going back to a schema without batches."""

import pytest
from sqlalchemy import create_engine

from models.schema.migrate import downgrade, upgrade
from models.state.events_outbox import record_events
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import assert_dense, number_events, row, single


@pytest.fixture
def url(empty_database_url: str) -> str:
    return empty_database_url.replace("postgresql://", "postgresql+psycopg://", 1)


def test_downgrade_keeps_events_that_wait_in_batches(url: str) -> None:
    upgrade(url)
    db = DbVerbs(create_engine(url))
    db.do(record_events, [row(0), row(1)])
    number_events(db)
    db.do(record_events, [row(2), row(3)])
    db.do(record_events, [single(4)])
    db.engine.dispose()

    downgrade(url, "0018")
    assert db.count("events", "event_uid IS NULL") == 0
    assert number_events(db) == 3
    contents = db.rows("SELECT frame->'data'->>'content' AS content FROM events ORDER BY feed_pos")
    assert [one.content for one in contents] == list("01234")
    db.engine.dispose()

    upgrade(url)
    assert_dense(db)
    db.engine.dispose()
