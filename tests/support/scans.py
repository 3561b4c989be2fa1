"""Find the tables and indexes that Postgres would read for a statement, beside a large history."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import TextClause

from tests.support.db_verbs import DbVerbs
from tests.support.query_plans import Plan, explain

_SESSIONS = """
    INSERT INTO sessions (session_id, incarnation, status, next_run, created_at, last_outcome)
    SELECT 'old_' || n, 'i' || n, 'finished', 2, now() - interval '1 day' - make_interval(secs => n), 'finished'
    FROM generate_series(1, :many) n
"""

_RUNS = """
    INSERT INTO runs (run_id, session_id, session_seq, type, parameters, execution_mode, demands, profile_id, status,
                      no_match_timeout_seconds, created_at, completed_at, runner_id, registration, claim_token)
    SELECT 'run_0' || lpad(CAST(n AS text), 12, '0'), 'old_' || n, 1, 'start_session', '{}', 'sync', '{}', 1,
        'completed', 300, now() - interval '1 day', now(), 'lnch_' || n % 100, n % 100, 'token_' || n
    FROM generate_series(1, :many) n
"""

_WAITING = """
    INSERT INTO runs (run_id, session_id, session_seq, type, parameters, execution_mode, demands, profile_id, status,
                      ready, no_match_timeout_seconds, match_deadline_at, not_before)
    SELECT 'run_1' || lpad(CAST(n AS text), 12, '0'), 'old_' || n, 2, 'resume_session', '{}', 'sync', '{}', 1000 + n % 50,
        'pending', n % 2 = 0, 300, CASE WHEN n % 2 = 0 THEN now() + make_interval(secs => n) END,
        CASE WHEN n % 2 = 1 THEN now() + make_interval(secs => n) END
    FROM generate_series(1, :many) n
"""

_CLAIMED = """
    INSERT INTO runs (run_id, session_id, session_seq, type, parameters, execution_mode, demands, profile_id, status,
                      no_match_timeout_seconds, runner_id, registration, claim_token, claim_poll_id, claimed_at,
                      claim_deadline_at)
    SELECT 'run_2' || lpad(CAST(n AS text), 12, '0'), 'old_' || 4000 + n, 2, 'resume_session', '{}', 'sync', '{}', 1,
        'claimed', 300, 'lnch_' || n % 100, n % 100, 'token_2' || n, 'poll_' || n, now(),
        now() + make_interval(secs => n)
    FROM generate_series(1, :many) n
"""


def fill(db: DbVerbs, *, ended: int = 40_000, waiting: int = 4_000, claimed: int = 2_000) -> None:
    """Insert many ended runs, some waiting ones, half of them delayed, and claims; update the planner's statistics."""
    db.rows(_SESSIONS, many=ended)
    db.rows(_RUNS, many=ended)
    db.rows(_WAITING, many=waiting)
    db.rows(_CLAIMED, many=claimed)
    analyze(db)


def analyze(db: DbVerbs) -> None:
    """Update the planner's statistics."""
    with db.engine.connect() as connection:
        autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
        autocommit.exec_driver_sql("VACUUM ANALYZE")


def scanned(db: DbVerbs, statement: TextClause, values: Mapping[str, Any], *, way: str = "custom") -> set[str]:
    """Return the tables that a statement reads from end to end."""
    nodes = _plan(db, statement, values, way).nodes()
    return {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan" and node["Actual Loops"]}


def indexes(db: DbVerbs, statement: TextClause, values: Mapping[str, Any], *, way: str = "custom") -> set[str]:
    """Return the indexes that a statement uses."""
    return {node["Index Name"] for node in _plan(db, statement, values, way).nodes() if "Index Name" in node}


def _plan(db: DbVerbs, statement: TextClause, values: Mapping[str, Any], way: str) -> Plan:
    names = statement.compile().params
    with db.engine.connect() as connection:
        plan = explain(connection, statement, {name: values[name] for name in names}, way=way)
        connection.rollback()
    return plan
