"""Check the cost of bulks: by the runs of a chunk, never by the number of bulks, chunks or runs that are stored."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, TextClause

from models.bulk import chunks, jobs
from models.bulk.match import match_runs
from models.core.callers import ADMIN, Caller, Role
from models.core.statuses import BulkAction
from models.runs import replay
from models.runs.search import RunSearch, search_ids
from testkit.servers import PostgresOfTests
from tests.support.filled_database import filled_database
from tests.support.query_plans import explain, plans_of

WAYS = pytest.mark.parametrize("way", ["custom", "generic"])
RUNNING = 10
ann = Caller(Role.USER, "ann")

# 5,000 ended bulks, 10 running ones with 500 chunks each, 10 dry runs; 20,000 ended runs of as many sessions.
FILL = """
INSERT INTO bulk_jobs (bulk_id, caller, role, owner, action, state, total, expires_at, created_at, due_at, ended_at,
    prepared_at)
SELECT 'blk_' || lpad(to_hex(n), 32, '0'), 'user:' || CASE WHEN n % 2 = 0 THEN 'ann' ELSE 'bob' END, 'user', 'ann',
    CASE WHEN n % 2 = 0 THEN 'replay' ELSE 'stop' END, s.state, 1000, now() + interval '15 minutes',
    CASE WHEN s.state <> 'prepared' THEN now() - (5020 - n) * interval '1 minute' END, now(),
    CASE WHEN s.state = 'completed' THEN now() END, now()
FROM generate_series(1, 5020) n
CROSS JOIN LATERAL (SELECT CASE WHEN n <= 5000 THEN 'completed' WHEN n <= 5010 THEN 'running' ELSE 'prepared' END
    AS state) s;
INSERT INTO bulk_chunks (bulk_id, run_ids)
SELECT 'blk_' || lpad(to_hex(n), 32, '0'), ARRAY['run_' || lpad(to_hex(c), 32, '0')]
FROM generate_series(1, 500) c, generate_series(5001, 5010) n;
INSERT INTO demand_profiles (hash, tags) VALUES ('hash', '{}');
INSERT INTO sessions (session_id, incarnation, status, owner)
SELECT 'ses_' || lpad(to_hex(n), 32, '0'), n, 'finished', 'ann' FROM generate_series(1, 20000) n;
INSERT INTO runs (run_id, session_id, session_seq, owner, type, parameters, execution_mode, demands, profile_id,
    no_match_timeout_seconds, status, created_at, completed_at, labels)
SELECT 'run_' || lpad(to_hex(n), 32, '0'), 'ses_' || lpad(to_hex(n), 32, '0'), 1, 'ann', 'start_session', '{}', 'sync',
    '{}', (SELECT max(profile_id) FROM demand_profiles), 300, 'completed', now() - n * interval '1 second', now(),
    CASE WHEN n % 100 = 0 THEN '{"team":"sky"}'::jsonb END
FROM generate_series(1, 20000) n;
ANALYZE;
"""
NEWEST_RUNNING = f"blk_{5010:032x}"
SOME = [f"run_{number:032x}" for number in range(100, 150)]


@pytest.fixture(scope="module")
def filled(postgres: PostgresOfTests) -> Iterator[Engine]:
    with filled_database(postgres, FILL) as engine:
        yield engine


@pytest.fixture
def conn(filled: Engine) -> Iterator[Connection]:
    """Open a transaction that is rolled back."""
    with filled.connect() as connection:
        yield connection
        connection.rollback()


STATEMENTS: dict[str, tuple[TextClause, dict[str, Any], dict[str, int]]] = {
    "take": (chunks._TAKE, {"ahead": 3.0}, {"bulk_jobs": RUNNING + RUNNING**2}),
    "next": (chunks._NEXT, {"bulk_id": NEWEST_RUNNING}, {"bulk_chunks": 2}),
    "is last": (chunks._IS_LAST, {"bulk_id": NEWEST_RUNNING}, {"bulk_chunks": 2}),
    "done": (chunks._DONE, {"chunk_id": 70}, {"bulk_chunks": 1}),
    "give way": (jobs._GIVE_WAY, {"caller": "user:ann", "most": 2}, {"bulk_jobs": 60, "bulk_chunks": 0}),
    "running": (jobs._RUNNING, {"caller": "user:ann"}, {"bulk_jobs": RUNNING}),
    "page": (jobs._PAGE[False, False], {"most": 21}, {"bulk_jobs": 21}),
    "page of a user": (jobs._PAGE[True, False], {"most": 21, "caller": "user:ann"}, {"bulk_jobs": 42}),
    "originals": (replay._ORIGINALS, {"run_ids": SOME}, {"runs": 2 * len(SOME)}),
}


@WAYS
@pytest.mark.parametrize("name", STATEMENTS)
def test_statement_of_bulks_touches_its_rows(conn: Connection, name: str, way: str) -> None:
    statement, values, most = STATEMENTS[name]

    plan = explain(conn, statement, values, way=way)

    for table, number in most.items():
        assert plan.touched(table) <= number, (table, plan.indexes(table))
        assert "seq scan" not in plan.indexes(table)


READS: dict[str, tuple[Callable[[Connection], object], int]] = {
    "runs of a chunk": (
        lambda conn: search_ids(conn, ann, RunSearch(statuses=("completed",), run_ids=tuple(SOME)), limit=50),
        2 * len(SOME),
    ),
    "limit": (
        lambda conn: match_runs(conn, ADMIN, RunSearch(statuses=("completed",)), action=BulkAction.REPLAY, limit=100),
        2 * 1000 + 100,
    ),
    "label": (
        lambda conn: match_runs(conn, ADMIN, RunSearch(labels={"team": "sky"}), action=BulkAction.DELETE, limit=500),
        20_000 + 500 + 100,
    ),
}


@WAYS
@pytest.mark.parametrize("name", READS)
def test_search_of_bulk_touches_its_runs_or_its_bound(conn: Connection, name: str, way: str) -> None:
    """Read each run of a walk once, and those found by their ids."""
    call, most = READS[name]

    plans = plans_of(conn, lambda: call(conn), way=way)

    assert sum(plan.touched("runs") for plan in plans) <= 2 * most
    assert all("seq scan" not in plan.indexes("runs") for plan in plans)
