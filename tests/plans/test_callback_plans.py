"""Check that queries about parents cost by the results waiting for due parents, not by those delivered or kept."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine

from models.callbacks import resume_parents
from models.expiry import cleanup
from models.state import child_results, session_status
from testkit.servers import PostgresOfTests
from tests.support.db_verbs import DbVerbs
from tests.support.parents import ended_child
from tests.support.query_plans import Plan, explain
from tests.support.reports import finished
from tests.support.scans import analyze, fill, indexes, scanned

WAYS = pytest.mark.parametrize("way", ["custom", "generic"])
LARGE = {"runs", "sessions", "events", "child_results"}

_DELIVERED = """
    INSERT INTO child_results (child_run_id, child_session_id, parent_session_id, parent_incarnation, outcome, body,
                               body_bytes, delivered_in)
    SELECT 'run_d' || n, 'child_' || n, 'old_' || 1 + n % 40000, 'i' || 1 + n % 40000, 'completed', '{}', 2,
        'run_0' || lpad(CAST(1 + n % 40000 AS text), 12, '0')
    FROM generate_series(1, 100000) n
"""
_KEPT = """
    INSERT INTO child_results (child_run_id, child_session_id, parent_session_id, parent_incarnation, outcome, body)
    SELECT 'run_k' || n, 'kept_' || n, 'failed_' || 1 + n % 200, 'f', 'completed', '{}' FROM generate_series(1, 1000) n
"""
_FAILED = """
    INSERT INTO sessions (session_id, incarnation, status, last_outcome)
    SELECT 'failed_' || n, 'f', 'failed', 'failed' FROM generate_series(1, 200) n
"""


@pytest.fixture(scope="module")
def delivered_history(postgres: PostgresOfTests) -> Iterator[DbVerbs]:
    """Fill 100,000 delivered results, 1,000 kept for failed parents, and three parents that are due."""
    url = postgres.create()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    db = DbVerbs(engine)
    fill(db)
    for statement in (_DELIVERED, _FAILED, _KEPT):
        db.rows(statement)
    for _ in range(3):
        ended_child(db, finished(db), "done")
    analyze(db)
    yield db
    engine.dispose()
    postgres.drop(url)


def plan_of(db: DbVerbs, statement: Any, values: dict[str, Any], way: str) -> Plan:
    with db.engine.connect() as connection:
        plan = explain(connection, statement, values, way=way)
        connection.rollback()
    return plan


@WAYS
def test_due_parents_are_read_from_waiting_results_only(delivered_history: DbVerbs, way: str) -> None:
    """Use the index of waiting results; return each session once."""
    plan = plan_of(delivered_history, resume_parents._DUE, {"most": 100}, way)
    assert plan.indexes("child_results") == {"ix_child_results_waiting"}
    assert plan.touched("child_results") <= 1003
    assert plan.touched("sessions") <= 203
    assert len(delivered_history.rows(resume_parents._DUE.text, most=100)) == 3


@WAYS
def test_no_query_about_a_parent_scans_a_table(delivered_history: DbVerbs, way: str) -> None:
    """Cover parents, waiting results, their bodies, and ends of children and of runs that carried results."""
    values = {
        "parents": ["failed_1"],
        "most": 1000,
        "children": ["run_d1"],
        "runs": ["run_d1"],
        "sessions": ["old_1"],
    }
    parts = {name: getattr(resume_parents, name) for name in ("_PARENTS", "_WAITING", "_BODIES", "_DELIVERED")}
    parts |= {"_KEEP": child_results._KEEP, "_GIVE_BACK": child_results._GIVE_BACK}
    for name, statement in parts.items():
        assert scanned(delivered_history, statement, values, way=way) & LARGE == set(), name
    assert "ix_child_results_delivered" in indexes(delivered_history, child_results._GIVE_BACK, values, way=way)
    assert "ix_child_results_waiting" in indexes(delivered_history, resume_parents._WAITING, values, way=way)


@WAYS
def test_settling_a_session_looks_at_waiting_results_once(delivered_history: DbVerbs, way: str) -> None:
    """Every end of a run checks whether results are owed."""
    names = ("sessions", "outcomes", "unless_live", "lives", "runners", "registrations", "resumed", "parents", "signs")
    values = dict(
        zip(names, (["old_1"], [None], [False], ["keep"], [None], [None], [False], [None], [False]), strict=True)
    )
    delivered_history.rows("UPDATE sessions SET status = 'finished' WHERE session_id = 'old_1'")
    plan = plan_of(delivered_history, session_status._UPDATE_STATUS, values, way)
    assert plan.touched("child_results") <= 1
    assert plan.indexes("child_results") <= {"ix_child_results_waiting"}


def test_upkeep_reads_each_result_once(delivered_history: DbVerbs) -> None:
    """A full scan is accepted: upkeep runs four times an hour."""
    plan = plan_of(delivered_history, cleanup._CHILD_RESULTS, {"most": 1000}, "custom")
    assert plan.touched("child_results") <= 2 * 102_000
