"""Check that passes over schedules, and the reader of webhooks, touch what they decide and tell, beside much else."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import TextClause, create_engine

from models.core.callers import Caller, Role
from models.schedules import decide, fires, listing
from models.schedules.spec import Spec
from models.webhooks import match
from testkit.servers import PostgresOfTests
from tests.support.db_verbs import DbVerbs
from tests.support.query_plans import LARGE, Plan, explain
from tests.support.scans import analyze
from tests.support.schedules import made
from tests.support.webhooks import ALL, put

WAYS = pytest.mark.parametrize("way", ["custom", "generic"])
SCHEDULES, DUE, BUFFERED = 10_000, 20, 30
EVENTS, POSITIONS, EVENTS_OF_SESSION = 60_000, 1_000, 120
# Everything but ids and times is that of the one schedule that was put.
_COPY = """
    INSERT INTO schedules (schedule_id, owner, put_key, spec, timezone, run, template, overlap, buffer_most,
        catch_up_seconds, catch_up_most, jitter_seconds, note, paused, decided_until, next_fire_at, next_at, has_buffered,
        tz_version)
    SELECT 'copy-' || n, 'owner-' || n % 100, 'k', spec, timezone, run, template, overlap, buffer_most,
        catch_up_seconds, catch_up_most, jitter_seconds, note, n % 10 = 0, now(),
        now() + make_interval(secs => n), now() + make_interval(secs => n), false, tz_version
    FROM schedules, generate_series(1, :many) n WHERE schedule_id = 'a'
"""
_FIRES = """
    INSERT INTO schedule_fires (schedule_no, fire_at, kind, outcome, run_id, run_status, submitted_at, owner)
    SELECT schedule_no, now() - make_interval(secs => 3600 * n), 'due', 'submitted', 'run_' || schedule_no || '_' || n,
        'completed', now() - make_interval(secs => 3600 * n), owner
    FROM schedules, generate_series(1, 4) n
"""


@pytest.fixture(scope="module")
def many(postgres: PostgresOfTests) -> Iterator[DbVerbs]:
    """Fill 10,000 schedules with their decisions, a few of them due, and a long history of ends."""
    url = postgres.create()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    db = DbVerbs(engine)
    made(db, "a", Spec(every=3600))
    db.rows(_COPY, many=SCHEDULES)
    db.rows(_FIRES)
    db.rows(
        "UPDATE schedules SET next_at = now() - interval '1 second' WHERE NOT paused AND schedule_no IN"
        " (SELECT schedule_no FROM schedules WHERE NOT paused ORDER BY next_at LIMIT :n)",
        n=DUE,
    )
    db.rows(
        "INSERT INTO schedule_fires (schedule_no, fire_at, kind, outcome)"
        " SELECT schedule_no, now(), 'due', 'buffered' FROM schedules WHERE NOT paused ORDER BY next_at DESC LIMIT :n",
        n=BUFFERED,
    )
    db.rows(
        "UPDATE schedules SET has_buffered = true"
        " WHERE schedule_no IN (SELECT schedule_no FROM schedule_fires WHERE outcome = 'buffered')"
    )
    put(db, "hook", "https://example.com/hook", *ALL)
    db.rows(
        "INSERT INTO events (kind, session_id, run_id, owner, frame, feed_pos)"
        " SELECT CASE n % 3 WHEN 0 THEN 'event' WHEN 1 THEN 'run_updated' ELSE 'session_updated' END,"
        " 's' || n % :sessions, 'r' || n, 'o' || n % 7, CAST(CASE n % 3 WHEN 0 THEN '{}'"
        ' WHEN 1 THEN \'{"run": {"status": "completed", "attempt": 1}}\''
        ' ELSE \'{"session": {"status": "finished"}}\' END AS json), n FROM generate_series(1, :many) n',
        many=EVENTS,
        sessions=EVENTS // EVENTS_OF_SESSION,
    )
    db.rows("UPDATE feed_head SET last_pos = :many", many=EVENTS)
    db.rows("UPDATE webhooks SET after_position = 0")
    analyze(db)
    yield db
    engine.dispose()
    postgres.drop(url)


def plan_of(db: DbVerbs, statement: TextClause, values: dict[str, Any], way: str) -> Plan:
    with db.engine.connect() as connection:
        connection.exec_driver_sql(LARGE)
        plan = explain(connection, statement, values, way=way)
        connection.rollback()
    return plan


@WAYS
def test_pass_reads_schedules_that_are_due_only(many: DbVerbs, way: str) -> None:
    """Find them by two partial indexes, and lock them by their numbers."""
    plan = plan_of(many, decide._DUE, {"most": 50}, way)
    assert "seq scan" not in plan.indexes("schedules") | plan.indexes("schedule_fires")
    assert plan.touched("schedules") <= 2 * (DUE + BUFFERED)


@WAYS
def test_facts_of_a_pass_are_read_by_schedule(many: DbVerbs, way: str) -> None:
    """Neither the decisions of others nor those that are over are looked at."""
    numbers = [row.schedule_no for row in many.rows("SELECT schedule_no FROM schedules LIMIT 50")]
    chosen = {"schedules": numbers}
    for statement, values in (
        (fires._SETTLE, {**chosen, "deleted": fires.DELETED}),
        (fires._OPEN, chosen),
        (fires._WAITING, {**chosen, "most": fires.MOST_WAITING}),
        (fires._SPENT, {"owners": ["owner-1", "owner-2"], "seconds": fires.QUOTA_SECONDS}),
    ):
        plan = plan_of(many, statement, values, way)
        assert "seq scan" not in plan.indexes("schedule_fires"), statement.text
        assert plan.touched("schedule_fires") <= BUFFERED, statement.text


def test_page_of_schedules_is_read_in_its_order(many: DbVerbs) -> None:
    for caller, values in ((False, {}), (True, {"owner": "owner-1"})):
        plan = plan_of(many, listing._PAGE[caller, False], {**values, "most": 51}, "custom")
        assert plan.touched("schedules") <= 51, plan.top
    ann = Caller(Role.USER, "owner-1")
    page = many.do(listing.list_schedules, ann, limit=1000)
    assert isinstance(page, listing.SchedulePage)
    assert len(page.schedules) == SCHEDULES // 100


@WAYS
def test_matcher_of_webhooks_reads_its_stretch_and_one_event_before_each_end(many: DbVerbs, way: str) -> None:
    """Leave the rest of the history, and of each session, alone."""
    after = EVENTS // 2
    values = {"after": after, "upto": after + POSITIONS, "looked_through": match.MOST_LOOKED_THROUGH}
    plan = plan_of(many, match._TELL, values, way)
    assert "seq scan" not in plan.indexes("events")
    assert plan.touched("events") <= 2 * POSITIONS + 10 * POSITIONS / 3
