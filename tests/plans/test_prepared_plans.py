"""Check that a plan prepared while the tables were empty serves when they are full."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from sqlalchemy import ClauseElement, Connection, Engine

from models.claims import claim, delivery, polls
from models.core.statuses import RunStatus
from models.runs import report_plain, stop_plain, submit
from models.state import locks, session_status, transitions, try_locks
from runtime.postgres import sync_engine
from runtime.settings import Settings
from tests.support.query_plans import LARGE, Plan, numbers_of_plans, prepare

# Keep autovacuum's statistics out: they would have the plans made anew.
_QUIET = """
ALTER TABLE runs SET (autovacuum_enabled = off);
ALTER TABLE sessions SET (autovacuum_enabled = off);
ALTER TABLE runners SET (autovacuum_enabled = off);
ALTER TABLE stop_commands SET (autovacuum_enabled = off);
ALTER TABLE child_results SET (autovacuum_enabled = off);
"""
# Rows of a small installation, for statistics that are out of date later.
_FEW = """
INSERT INTO runners (runner_id, hostname, project_dir, executor_profile, tags, told_interval, sends_tokens)
VALUES ('lnch_few', 'h', '/p', 'e', '{}', 60, true);
INSERT INTO sessions (session_id, incarnation, status, next_run) SELECT 'few_' || n, n, 'pending', 2
FROM generate_series(1, 5) n;
INSERT INTO runs (run_id, session_id, session_seq, type, parameters, execution_mode, demands, profile_id, status,
    no_match_timeout_seconds, claim_token, runner_id, registration)
SELECT 'few_' || n, 'few_' || n, 1, 'start_session', '{}', 'sync', '{}', 1, 'running', 300, n, 'lnch_few', 1
FROM generate_series(1, 5) n;
ANALYZE runners, sessions, runs, stop_commands, child_results;
"""
_FILL = """
INSERT INTO runners (runner_id, hostname, project_dir, executor_profile, tags, told_interval, sends_tokens)
SELECT 'lnch_' || n, 'h', '/p', 'e', '{}', 60, true FROM generate_series(1, 2000) n;
INSERT INTO sessions (session_id, incarnation, status, next_run)
SELECT 'ses_' || n, n, 'pending', 2 FROM generate_series(1, 20000) n;
INSERT INTO runs (run_id, session_id, session_seq, type, parameters, execution_mode, demands, profile_id, status, ready,
    no_match_timeout_seconds, match_deadline_at, claim_token, runner_id, registration)
SELECT 'run_' || n, 'ses_' || n, 1, 'start_session', '{}', 'sync', '{}', 1,
    CASE WHEN n <= 2000 THEN 'running' ELSE 'pending' END, n > 2000, 300,
    CASE WHEN n > 2000 THEN now() + interval '5 minutes' END, CASE WHEN n <= 2000 THEN 'token ' || n END,
    CASE WHEN n <= 2000 THEN 'lnch_' || n END, CASE WHEN n <= 2000 THEN n END
FROM generate_series(1, 20000) n;
INSERT INTO stop_commands (runner_id, registration, session_id, deadline_at)
SELECT 'lnch_1', 1, 'ses_' || n, now() FROM generate_series(10001, 12000) n;
INSERT INTO child_results (child_run_id, child_session_id, parent_session_id, outcome, body)
SELECT 'child_' || n, 'child', 'ses_' || n, 'completed', '{}' FROM generate_series(10001, 12000) n;
"""
FILL = f"{_QUIET}{_FILL}ANALYZE;{LARGE}"
TABLES = ("runs", "sessions", "runners", "stop_commands", "child_results")

RUNS, SESSIONS, TOKENS = ["run_7", "run_8"], ["ses_7", "ses_8"], ["token 7", "token 8"]
POLLS, RUNNERS = ["poll_1", "poll_2"], ["lnch_7", "lnch_8"]
NONE, NO = [None] * 2, [False] * 2
CASES: Mapping[str, tuple[ClauseElement, dict[str, Any]]] = {
    "holding runs": (locks._LOCK_RUNS, {"run_ids": RUNS, "sessions": []}),
    "holding free runs": (try_locks._LOCK_RUNS, {"run_ids": RUNS, "sessions": []}),
    "holding sessions": (locks.LOCK_SESSIONS, {"sessions": SESSIONS}),
    "unfinished runs": (locks._UNFINISHED_NOW, {"sessions": SESSIONS}),
    "moving": (
        transitions._MOVE,
        {
            "run_ids": RUNS,
            "formers": [RunStatus.RUNNING.value] * 2,
            "tokens": TOKENS,
            "statuses": [RunStatus.COMPLETED.value] * 2,
            "errors": NONE,
            "starts": NO,
            "by_us": NO,
            "stop_causes": NONE,
            "stop_seconds": NONE,
            "not_for": NONE,
            "fruitless": NO,
            "unstarts": NO,
            "remember": NONE,
            "delays": NONE,
        },
    ),
    "settling": (
        session_status._UPDATE_STATUS,
        {
            "sessions": SESSIONS,
            "outcomes": NONE,
            "unless_live": NO,
            "lives": ["keep"] * 2,
            "runners": NONE,
            "registrations": NONE,
            "resumed": NO,
            "parents": NONE,
            "signs": NO,
        },
    ),
    "taking": (
        claim._TAKE,
        {
            "run_ids": ["run_2007", "run_2008"],
            "tokens": TOKENS,
            "polls": POLLS,
            "runners": RUNNERS,
            "registrations": [7, 8],
            "claimants": ["machine", None],
            "delivered": True,
            "claim_timeout": 30.0,
            "start_timeout": 120.0,
        },
    ),
    "confirming": (delivery._CONFIRM, {"run_ids": RUNS, "tokens": TOKENS, "start_timeout": 120.0}),
    "looking at polls": (
        polls._LOOK,
        {"polls": POLLS, "runner_ids": RUNNERS, "forget": 86_400.0, "again": 10.0},
    ),
    "reporting plainly": (
        report_plain._REPORT,
        {
            "runs": RUNS,
            "runners": RUNNERS,
            "subjects": NONE,
            "tokens": TOKENS,
            "statuses": [RunStatus.COMPLETED.value] * 2,
            "outcomes": ["finished"] * 2,
            "errors": NONE,
            "lost_after": 60.0,
            "forget_runner": 86_400.0,
        },
    ),
    "stopping sessions plainly": (
        stop_plain._STOP_SESSIONS,
        {"ids": SESSIONS, "owners": NONE, "stop_timeout": 60.0},
    ),
    "stopping runs plainly": (
        stop_plain._STOP_RUNS,
        {"ids": RUNS, "owners": NONE, "stop_timeout": 60.0},
    ),
    "filling sessions": (
        submit._FILL,
        {"sessions": SESSIONS, "scopes": NONE, "owners": NONE, "depths": [0] * 2, "parents": NONE, "starts": NO},
    ),
}


def test_plans_made_on_empty_tables_read_full_ones_by_key(engine: Engine, settings: Settings) -> None:
    """Read only the requested rows, while no ANALYZE has run."""
    read_by_key(settings, CASES, _QUIET)


def test_plan_of_plain_reports_made_on_few_rows_reads_many_by_key(engine: Engine, settings: Settings) -> None:
    read_by_key(settings, ["reporting plainly"], _QUIET + _FEW)


def read_by_key(settings: Settings, cases: Iterable[str], before: str) -> None:
    """Make the plans after the statements ``before``, fill the tables, and count the rows that each reads then."""
    ours = sync_engine(settings, pool_size=1, name="test")
    with ours.connect() as conn, conn.begin() as transaction:
        conn.exec_driver_sql(before)
        plans = {case: prepared(conn, *CASES[case]) for case in cases}
        for plan in plans.values():
            plan()
        conn.exec_driver_sql(_FILL)
        found = {case: plan() for case, plan in plans.items()}
        transaction.rollback()
    ours.dispose()
    for case, plan_made in found.items():
        for table in TABLES:
            assert not plan_made.indexes(table) & {"seq scan", "ix_runs_newest", "ix_sessions_newest"}, case
            assert plan_made.touched(table) <= 12, (case, table)


def prepared(conn: Connection, statement: ClauseElement, values: Mapping[str, Any]) -> Callable[[], Plan]:
    """Return the statement with its own plan, made at the first call and kept; each call explains it, undone."""
    conn.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    cursor, command = prepare(conn, statement, values)
    # psycopg deallocates all statements when one of its own is a ROLLBACK.
    server = cursor.connection.pgconn

    def plan() -> Plan:
        server.exec_(b"SAVEPOINT explained")
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {command}".encode())
        row = cursor.fetchone()
        assert row is not None
        server.exec_(b"ROLLBACK TO explained")
        return Plan(row[0][0]["Plan"])

    return plan


@pytest.mark.parametrize("case", [name for name in CASES if name.endswith("plainly")])
def test_plain_statement_keeps_its_plan_while_tables_are_full(conn: Connection, case: str) -> None:
    """Planning takes longer than execution: Postgres plans five times, then keeps a plan that seems to cost no more."""
    statement, values = CASES[case]

    assert numbers_of_plans(conn, statement, values, 8) == (5, 3)
