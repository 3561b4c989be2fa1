"""Check that retention reads only what it takes beside long histories and many sessions."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import TextClause, create_engine

from models.feed import retention
from testkit.servers import PostgresOfTests
from tests.support.db_verbs import DbVerbs
from tests.support.query_plans import Plan, explain
from tests.support.scans import analyze, fill

WAYS = pytest.mark.parametrize("way", ["custom", "generic"])
EVENTS = 60_000
SESSIONS = 20_000
MOST = 200
DAY = 86_400.0


@pytest.fixture(scope="module")
def crowded(postgres: PostgresOfTests) -> Iterator[DbVerbs]:
    """Fill many events of many sessions, the older half expired, a result in every hundredth, and many
    ended sessions.
    """
    url = postgres.create()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    db = DbVerbs(engine)
    db.rows(
        "INSERT INTO events (event_uid, kind, event_type, session_id, frame, feed_pos, created_at) "
        "SELECT 'u' || n, 'event', CASE n % 100 WHEN 0 THEN 'result' ELSE 'message' END, 'old_' || n % 5000 + 1, "
        "'{\"data\":{}}', n, now() - make_interval(days => CASE WHEN n <= :half THEN 40 ELSE 1 END) "
        "FROM generate_series(1, :many) n",
        many=EVENTS,
        half=EVENTS // 2,
    )
    db.rows("UPDATE feed_head SET last_pos = :many, numbered_below = :many", many=EVENTS)
    fill(db, ended=SESSIONS, waiting=500)
    db.rows("UPDATE sessions SET created_at = created_at - interval '40 days'")
    db.rows("UPDATE runs SET completed_at = completed_at - interval '40 days' WHERE status = 'completed'")
    db.rows("UPDATE sessions SET parent_session_id = 'old_1' WHERE session_id IN ('old_7001', 'old_7002')")
    analyze(db)
    yield db
    engine.dispose()
    postgres.drop(url)


def plan_of(db: DbVerbs, statement: TextClause, values: dict[str, Any], way: str) -> Plan:
    with db.engine.connect() as connection:
        plan = explain(connection, statement, values, way=way)
        connection.rollback()
    return plan


@WAYS
@pytest.mark.parametrize("floor", [0, EVENTS // 2, EVENTS])
def test_oldest_events_are_read_from_the_oldest_position_on(crowded: DbVerbs, floor: int, way: str) -> None:
    """Read as many as one pass takes; sort nothing."""
    crowded.rows("UPDATE feed_head SET floor = :floor", floor=floor)
    plan = plan_of(crowded, retention._OLDEST, {"age": 30 * DAY, "most": MOST}, way)
    assert plan.indexes("events") == {"uq_events_position"}
    assert plan.touched("events") <= MOST


IDS = {"ids": list(range(1, MOST + 1))}


@WAYS
@pytest.mark.parametrize("statement", [retention._LOCK_EVENTS, retention._DROP], ids=["hold", "drop"])
def test_events_are_locked_and_dropped_by_their_ids(crowded: DbVerbs, statement: TextClause, way: str) -> None:
    """Touch those of one pass and no others."""
    plan = plan_of(crowded, statement, IDS, way)
    assert plan.indexes("events") == {"pk_events"}
    assert plan.touched("events") <= MOST


@WAYS
def test_results_are_kept_without_reading_other_history(crowded: DbVerbs, way: str) -> None:
    """Read the events of the pass, their sessions, and whether one of these has a newer result."""
    plan = plan_of(crowded, retention._KEEP_RESULTS, IDS, way)
    assert plan.indexes("events") <= {"pk_events", "ix_events_result"}
    assert plan.indexes("sessions") <= {"pk_sessions"}
    assert plan.touched("events") <= 2 * MOST


@WAYS
@pytest.mark.parametrize("place", [0, SESSIONS // 2])
def test_step_over_sessions_begins_where_last_one_ended(crowded: DbVerbs, place: int, way: str) -> None:
    """Skip what lies before and behind it."""
    after = crowded.rows(
        "SELECT created_at, session_id FROM sessions ORDER BY created_at, session_id OFFSET :p LIMIT 1", p=place
    )[0]
    values = {"created_at": after.created_at, "session_id": after.session_id, "age": 30 * DAY, "most": MOST}
    plan = plan_of(crowded, retention._WALK, values, way)
    assert plan.indexes("sessions") == {"ix_sessions_newest"}
    assert plan.touched("sessions") <= MOST


@WAYS
def test_expired_sessions_are_found_by_their_own_rows(crowded: DbVerbs, way: str) -> None:
    """Read their runs, events and children by index, and no rows of other sessions."""
    names = [f"old_{one}" for one in range(9_000, 9_000 + MOST)]
    values = {"sessions": names, "age": 30 * DAY}
    plan = plan_of(crowded, retention._OVER, values, way)
    assert plan.touched("sessions") <= MOST + 10
    assert plan.touched("runs") <= 3 * MOST
    assert plan.touched("events") == 0
