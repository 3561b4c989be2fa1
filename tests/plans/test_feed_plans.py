"""Check that a look, a page and a pass of numbering touch only the rows they need beside a long history."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import TextClause, create_engine, text
from sqlalchemy.dialects import postgresql

from models.feed import sequence, timeline
from models.feed.pages import EVERYTHING, SPAN, FeedFilter, _page
from testkit.servers import PostgresOfTests
from tests.support.db_verbs import DbVerbs
from tests.support.query_plans import Plan, explain
from tests.support.scans import analyze

WAYS = pytest.mark.parametrize("way", ["custom", "generic"])
HISTORY = 60_000
PAGE = 500


@pytest.fixture(scope="module")
def long_history(postgres: PostgresOfTests) -> Iterator[DbVerbs]:
    """Fill many numbered events of many sessions, some waiting for positions, with a watermark below these."""
    url = postgres.create()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    db = DbVerbs(engine)
    db.rows(
        "INSERT INTO events (event_uid, kind, session_id, run_id, owner, frame, feed_pos) "
        "SELECT 'u' || n, CASE n % 3 WHEN 0 THEN 'event' WHEN 1 THEN 'run_updated' ELSE 'session_updated' END, "
        "'s' || n % 500, 'r' || n % 5000, 'o' || n % 7, '{\"data\":{}}', n FROM generate_series(1, :many) n",
        many=HISTORY,
    )
    db.rows(
        "INSERT INTO events (event_uid, kind, session_id, frame) "
        "SELECT 'w' || n, 'event', 's1', '{}' FROM generate_series(1, 50) n"
    )
    db.rows("UPDATE feed_head SET last_pos = :many, numbered_below = :many - 1000", many=HISTORY)
    analyze(db)
    yield db
    engine.dispose()
    postgres.drop(url)


def plan_of(db: DbVerbs, which: FeedFilter, after: int, way: str) -> Plan:
    """Explain the one feed query, as text with the values of the filter in it."""
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy annotates no dialect
    compiled = _page(which).compile(dialect=dialect)
    statement = text(re.sub(r"(:[a-z_0-9]+)::([A-Z]+)", r"CAST(\1 AS \2)", str(compiled)))
    values = compiled.construct_params({"after": after, "most": PAGE})
    with db.engine.connect() as connection:
        plan = explain(connection, statement, values, way=way)
        connection.rollback()
    return plan


@WAYS
@pytest.mark.parametrize("after", [0, HISTORY // 2, HISTORY - 10, HISTORY])
def test_page_of_everything_is_read_in_order_of_positions(long_history: DbVerbs, after: int, way: str) -> None:
    """Read its own length, wherever it begins; sort and discard nothing."""
    plan = plan_of(long_history, EVERYTHING, after, way)
    assert plan.indexes("events") == {"uq_events_position"}
    assert plan.touched("events") <= PAGE


@WAYS
@pytest.mark.parametrize("after", [0, HISTORY - 10])
def test_page_of_one_session_reads_few_other_rows(long_history: DbVerbs, after: int, way: str) -> None:
    """Skip what lies between; near the head, reading the last positions is as good."""
    plan = plan_of(long_history, FeedFilter(session_id="s7"), after, way)
    assert plan.touched("events") <= HISTORY / 500


@WAYS
@pytest.mark.parametrize(
    "which",
    [FeedFilter(run_id="none"), FeedFilter(owner="none")],
    ids=["run", "owner"],
)
def test_filter_without_matches_scans_a_bounded_range(long_history: DbVerbs, which: FeedFilter, way: str) -> None:
    """A page of a sparse feed costs a range of history, never all of it."""
    plan = plan_of(long_history, which, 0, way)
    assert plan.indexes("events") == {"uq_events_position"}
    assert plan.touched("events") <= SPAN


@WAYS
def test_reading_the_head_touches_one_event(long_history: DbVerbs, way: str) -> None:
    """Every web process reads it twice a second."""
    with long_history.engine.connect() as connection:
        plan = explain(connection, sequence._LOOK, {"age": 1.0}, way=way)
        connection.rollback()
    assert plan.indexes("events") == {"ix_events_unnumbered"}
    assert plan.touched("events") <= 1


@WAYS
def test_look_before_a_pass_touches_one_event(long_history: DbVerbs, way: str) -> None:
    """Every commit of a web process may cause one."""
    with long_history.engine.connect() as connection:
        plan = explain(connection, sequence._NUMBER_UNLESS_BUSY, {}, way=way)
        connection.rollback()
    assert plan.indexes("events") == {"ix_events_unnumbered"}
    assert plan.touched("events") <= 1


def test_numbering_reads_unnumbered_events_only(long_history: DbVerbs) -> None:
    """Use the small index of events without a position, above the watermark."""
    statement = text(
        "SELECT id FROM events WHERE feed_pos IS NULL AND id > :floor ORDER BY id LIMIT :batch FOR NO KEY UPDATE"
    )
    with long_history.engine.connect() as connection:
        plan = explain(connection, statement, {"floor": HISTORY - 1000, "batch": 1000})
        connection.rollback()
    assert plan.indexes("events") == {"ix_events_unnumbered"}
    assert plan.touched("events") == 50


FILL_BATCHES = """
    INSERT INTO unnumbered_batches
        (first_id, ids, kinds, session_ids, owners, run_ids, event_types, frames, created_at)
    SELECT n, ARRAY[n], ARRAY['event'], ARRAY['s' || n % 500], ARRAY[NULL], ARRAY[NULL], ARRAY[NULL],
        CAST(ARRAY['{}'] AS json[]), now()
    FROM generate_series(1, 20000) n
"""


def test_pass_reads_no_more_batches_than_it_numbers(db: DbVerbs) -> None:
    """Neither when the table was empty at the last look of the planner."""
    db.rows(FILL_BATCHES)
    with db.engine.connect() as connection:
        assert connection.execute(text("SELECT sequence_feed(100)")).scalar_one() == 100
        read = text("SELECT pg_stat_get_xact_tuples_returned(CAST('pk_unnumbered_batches' AS regclass))")
        assert 100 <= connection.execute(read).scalar_one() < 200
        scanned = text("SELECT pg_stat_get_xact_tuples_returned(CAST('unnumbered_batches' AS regclass))")
        assert connection.execute(scanned).scalar_one() == 0
        connection.rollback()


TIMELINE = {
    "session_id": "s7",
    "owner": None,
    "run_id": None,
    "after": 0,
    "before": timeline.ENDLESS,
    "most": None,
    "bytes": 1,
}


@WAYS
@pytest.mark.parametrize(
    ("statement", "values"),
    [
        (sequence._LOOK, {"age": 1.0}),
        (timeline._FORWARDS, TIMELINE),
        (timeline._BACKWARDS, TIMELINE),
    ],
    ids=["the head", "a timeline", "its end"],
)
def test_reads_of_waiting_batches_begin_above_the_watermark(
    db: DbVerbs, statement: TextClause, values: dict[str, Any], way: str
) -> None:
    """A pinned horizon may keep the entries of many batches that are gone."""
    db.rows(FILL_BATCHES)
    db.rows("UPDATE feed_head SET numbered_below = 19950")
    db.rows("SELECT setval('events_id_seq', 20000)")
    db.start(session_id="s7")
    analyze(db)
    with db.engine.connect() as connection:
        plan = explain(connection, statement, values, way=way)
        connection.rollback()
    assert plan.indexes("unnumbered_batches") == {"pk_unnumbered_batches"}
    assert plan.touched("unnumbered_batches") <= 60


def test_pass_reads_no_more_of_backlog_than_it_numbers(db: DbVerbs) -> None:
    """Workers were away: the backlog is long, and no statistics know of it yet."""
    db.rows(
        "INSERT INTO events (event_uid, kind, session_id, frame) "
        "SELECT 'b' || n, 'event', 's' || n, '{}' FROM generate_series(1, 20000) n"
    )
    with db.engine.connect() as connection:
        assert connection.execute(text("SELECT sequence_feed(100)")).scalar_one() == 100
        read = text("SELECT pg_stat_get_xact_tuples_returned(CAST('ix_events_unnumbered' AS regclass))")
        assert 100 <= connection.execute(read).scalar_one() < 200
        connection.rollback()
