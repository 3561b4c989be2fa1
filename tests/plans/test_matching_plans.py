"""Check that the sweep of unmatched runs costs by the runs that are due, never by the runs that wait."""

import re
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text

from models.claims import fleet
from models.core.callers import ADMIN
from models.expiry import match_deadlines
from models.expiry.match_deadlines import MOST_EXCLUDED
from models.runs import lists
from models.state.runs import get_run
from tests.support.query_plans import Plan, explain

WAYS = pytest.mark.parametrize("way", ["custom", "generic"])
MATCHED, LATELY, LONG = 1, 2, 3

# 15,000 ready runs each of a matched profile, of one unmatched for 10 s and of one unmatched for an hour, all of them
# ready for two hours; 20 no-match timeouts from 100 s to 2,000 s; 900 runs of the last profile are younger than theirs.
FILL = """
ALTER TABLE runs SET (autovacuum_enabled = off);
INSERT INTO demand_profiles (hash, tags, unmatched_since) SELECT 'hash ' || n, '{}', CASE WHEN n > 3 THEN NULL
    WHEN n = 2 THEN now() - interval '10 seconds' WHEN n = 3 THEN now() - interval '1 hour' END
    FROM generate_series(1, 1000) n;
INSERT INTO runners (runner_id, hostname, project_dir, executor_profile, tags, told_interval)
SELECT 'lnch_' || n, 'h', '/p', 'e', '{}', 60 FROM generate_series(1, 2000) n;
INSERT INTO sessions (session_id, incarnation, status)
SELECT 'ses_' || n, n, 'pending' FROM generate_series(1, 45900) n;
INSERT INTO runs (run_id, session_id, session_seq, type, parameters, execution_mode, demands, profile_id, status, ready,
    no_match_timeout_seconds, match_deadline_at)
SELECT 'run_' || lpad(to_hex(n), 32, '0'), 'ses_' || n, 1, 'start_session', '{}', 'sync', '{}',
    CASE WHEN n > 45000 THEN 3 ELSE 1 + n % 3 END, 'pending', true, 100 * (1 + n % 20),
    now() + CASE WHEN n > 45000 THEN interval '50 seconds' ELSE interval '-2 hours' END
FROM generate_series(1, 45900) n;
ANALYZE;
"""


def now(conn: Connection) -> Any:
    return conn.execute(text("SELECT now()")).scalar_one()


@WAYS
def test_timeouts_of_unmatched_profiles_cost_a_probe_each(conn: Connection, way: str) -> None:
    """Skip 15,000 runs whose profile has been unmatched for 10 s, and as many of a matched one."""
    plan = explain(conn, match_deadlines._PATIENCES, {"now": now(conn)}, way=way)

    assert plan.indexes("runs") == {"ix_runs_unmatched"}
    assert plan.touched("runs") <= 24
    assert plan.buffers <= 200


@WAYS
def test_due_runs_are_read_in_order_of_their_deadlines(conn: Connection, way: str) -> None:
    """Runs that became ready lately lie behind the end of the scan."""
    at = now(conn)
    values = {
        "profiles": [LONG, LONG],
        "seconds": [100, 2000],
        "untils": [at, at],
        "most": 50,
    }
    plan = explain(conn, match_deadlines._DUE, values, way=way)

    assert plan.indexes("runs") == {"ix_runs_unmatched"}
    assert plan.touched("runs") <= 101
    ready_lately = values | {"untils": [at - timedelta(days=1)] * 2}
    assert explain(conn, match_deadlines._DUE, ready_lately, way=way).touched("runs") == 0


@WAYS
def test_search_for_exclusions_skips_runs_without_any(conn: Connection, way: str) -> None:
    """All 45,900 runs are without exclusions."""
    values = {"from_profile": 0, "most": MOST_EXCLUDED}
    plan = explain(conn, match_deadlines._EXCLUDED, values, way=way)

    assert plan.indexes("runs") <= {"ix_runs_unmatched"}
    assert (plan.touched("runs"), plan.buffers <= 8) == (0, True)


@WAYS
def test_live_registrations_are_read_without_the_runs(conn: Connection, way: str) -> None:
    """Read runners and profiles only, however many runs wait."""
    plan = explain(conn, fleet._LOOK, {}, way=way)

    assert plan.indexes("runs") == set()
    assert plan.buffers <= 200


def test_timeout_of_listed_run_costs_look_at_its_profile(conn: Connection) -> None:
    """Pay for one page, not for all runs listed behind it."""
    page = lists.list_runs(conn, ADMIN, lists.RunFilter(), limit=10)
    assert isinstance(page, lists.RunPage)
    statement = lists.page_statement(lists._RUNS, frozenset(), ADMIN.role, is_next=False)
    sql = str(statement.compile(conn.engine))
    for name, value in (("most", 11), ("bytes", lists.PAGE_BYTES)):
        sql = re.sub(rf"%\({name}\)s(::[A-Z]+)?", str(value), sql)
    (top,) = conn.exec_driver_sql("EXPLAIN (ANALYZE, FORMAT JSON) " + sql).scalar_one()
    plan = Plan(top["Plan"])
    assert plan.touched("runs") <= 11
    assert plan.touched("demand_profiles") <= 11
    assert get_run(conn, ADMIN, page.runs[0].run_id) == page.runs[0]
