"""Check that holds of single runs cost expiry no look at the runs that are ready."""

import pytest
from sqlalchemy import create_engine

from models.runs import holds
from testkit.servers import PostgresOfTests
from tests.support.db_verbs import DbVerbs
from tests.support.query_plans import LARGE, explain
from tests.support.scans import analyze, fill


@pytest.mark.parametrize("way", ["custom", "generic"])
def test_single_holds_are_applied_from_their_rows(postgres: PostgresOfTests, way: str) -> None:
    """Read the runs that are held by their key, beside 2,000 ready ones; only holds of several go through all."""
    url = postgres.create()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    db = DbVerbs(engine)
    fill(db)
    db.rows(
        "INSERT INTO holds (name, run_id, held_by) SELECT 'run:' || run_id, run_id, 'x' FROM runs"
        " WHERE status = 'pending' AND ready ORDER BY run_id LIMIT 3"
    )
    analyze(db)
    with engine.begin() as connection:
        connection.exec_driver_sql(LARGE)
        plan = explain(connection, holds._TRY_TAKE_BACK_NAMED, {"most": 500}, way=way)
        connection.rollback()
    assert plan.touched("runs") <= 12, plan.top
    assert "seq scan" not in plan.indexes("runs")
    with engine.begin() as connection:
        assert holds.try_take_back(connection, 500) == 3
        assert holds.try_take_back(connection, 500) == 0
    engine.dispose()
    postgres.drop(url)
