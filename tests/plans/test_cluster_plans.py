"""Check that the snapshot for monitoring reads no history, however large, and the queue by an index only."""

from models.monitoring.cluster import read_cluster, read_tables
from runtime.postgres import sync_engine
from runtime.settings import Settings
from testkit.servers import PostgresOfTests
from tests.support.db_verbs import DbVerbs
from tests.support.query_plans import plans_of
from tests.support.reports import running
from tests.support.scans import fill

HISTORY = 40_000
UNFINISHED = 6_000 + 1


def test_snapshot_reads_unfinished_runs_by_their_indexes(postgres: PostgresOfTests) -> None:
    url = postgres.create()
    engine = sync_engine(Settings(database_url=url))
    db = DbVerbs(engine)
    running(db)
    fill(db, ended=HISTORY)
    for way in ("custom", "generic"):
        with engine.begin() as connection:
            plans = plans_of(connection, lambda connection=connection: read_cluster(connection, ["expire"]), way=way)
            plans += plans_of(connection, lambda connection=connection: read_tables(connection), way=way)
        of_runs = [plan for plan in plans if plan.indexes("runs")]
        assert of_runs
        for plan in plans:
            assert plan.touched("runs") <= UNFINISHED, way
            assert plan.touched("sessions") == 0
            assert plan.touched("events") <= 10
            assert "seq scan" not in plan.indexes("runs") | plan.indexes("events")
        assert set[str]().union(*(plan.indexes("runs") for plan in of_runs)) <= {
            "ix_runs_pending",
            "ix_runs_in_hand",
        }
    engine.dispose()
    postgres.drop(url)
