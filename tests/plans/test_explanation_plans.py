"""Check that explanations cost by runners and queues, never by history, and take four statements at most."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event

from models.core.callers import ADMIN, Caller, Role
from models.core.limits import DEFAULT_LIMITS
from models.explanations import queues, run_facts, runner_facts
from models.explanations.explain_run import explain_run
from models.explanations.explain_runner import explain_runner
from models.explanations.reasons import RunExplanation, RunnerExplanation
from tests.support.query_plans import explain

WAYS = pytest.mark.parametrize("way", ["custom", "generic"])

# 30,000 runs that have ended; 6,000 ready ones of 60 profiles, of which 3 match; one runner with a capacity of 1 that a
# run fills, 1,500 others that match nothing.
FILL = """
ALTER TABLE runs SET (autovacuum_enabled = off);
INSERT INTO demand_profiles (hash, tags) SELECT 'hash ' || n, CASE WHEN n > 3 THEN ARRAY['tag ' || n] ELSE '{}' END
    FROM generate_series(1, 200) n;
INSERT INTO runners (runner_id, hostname, project_dir, executor_profile, tags, told_interval, capacity,
    require_matching_tags)
SELECT 'lnch_' || lpad(n::text, 5, '0'), 'h', '/p', 'e', '{other}', 60, 1, n > 1 FROM generate_series(1, 1501) n;
INSERT INTO waiting_polls (poll_id, runner_id, registration, instance, wanted)
SELECT 'poll_' || runner_id, runner_id, registration, 'web-1', 1 FROM runners LIMIT 500;
INSERT INTO sessions (session_id, incarnation, status)
SELECT 'ses_' || n, n, 'pending' FROM generate_series(1, 36001) n;
INSERT INTO runs (run_id, session_id, session_seq, type, parameters, execution_mode, demands, profile_id, status, ready,
    no_match_timeout_seconds, match_deadline_at, completed_at, priority, claim_token, runner_id, registration, claimed_at)
SELECT 'run_' || lpad(to_hex(n), 32, '0'), 'ses_' || n, 1, 'start_session', '{}', 'sync', '{}', 1 + n % 60,
    CASE WHEN n > 36000 THEN 'running' WHEN n > 30000 THEN 'pending' ELSE 'completed' END, n BETWEEN 30001 AND 36000,
    300, now(), CASE WHEN n <= 30000 THEN now() END, n % 3, CASE WHEN n > 36000 THEN 't' END, 'lnch_00001',
    (SELECT registration FROM runners WHERE runner_id = 'lnch_00001'), now() - interval '1 minute'
FROM generate_series(1, 36001) n;
ANALYZE;
"""
RUN_ID, RUNNER_ID = f"run_{36_000:032x}", "lnch_00001"


@pytest.fixture
def conn(conn: Connection) -> Connection:
    """Choose plans as processes of ours do."""
    conn.exec_driver_sql("SET LOCAL enable_seqscan = off")
    return conn


@contextmanager
def counted_statements(conn: Connection) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(*given: Any) -> None:
        statements.append(given[2])

    event.listen(conn.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(conn.engine, "before_cursor_execute", note)


def test_explanations_take_four_statements(conn: Connection) -> None:
    with counted_statements(conn) as of_run:
        found = explain_run(conn, ADMIN, RUN_ID)
    assert isinstance(found, RunExplanation)
    assert found.runners is not None
    assert found.ahead is not None
    assert (found.runners.known, found.runners.match, found.runners.of_matching.full) == (1000, 1, 1)
    assert (found.ahead.count, found.ahead.exact) == (299, True)
    assert len(of_run) == 4
    with counted_statements(conn) as of_runner:
        idle = explain_runner(conn, ADMIN, RUNNER_ID)
    assert isinstance(idle, RunnerExplanation)
    assert (idle.ready.count, idle.ready.match) == (6000, 300)
    assert len(of_runner) == 3
    with counted_statements(conn) as of_user:
        explain_run(conn, Caller(Role.USER, "ann"), RUN_ID)
    assert len(of_user) == 1


@WAYS
def test_facts_of_run_are_read_by_keys(conn: Connection, way: str) -> None:
    values = {"run_id": RUN_ID, "stale_after": 30.0}
    plan = explain(conn, run_facts._READ, values, way=way)
    assert plan.touched("runs") <= 2
    assert plan.touched("runners") <= 1
    assert plan.touched("demand_profiles") <= 2


@WAYS
def test_runners_are_read_up_to_bound_and_with_runs_in_hand_only(conn: Connection, way: str) -> None:
    """Read the runs in hand by their index, and no run that waits or has ended."""
    values = {
        "stale_after": 30.0,
        "forget": DEFAULT_LIMITS.forget_runner,
        "seen": 5,
        "polls": runner_facts.MOST_POLLS_EACH,
        "most": runner_facts.MOST_RUNNERS,
        "runner_id": None,
    }
    plan = explain(conn, runner_facts._READ, values, way=way)
    assert plan.indexes("runs") == {"ix_runs_in_hand"}
    assert plan.touched("runs") <= 1
    # The first 1,000 for the bound, once more with their columns, and all for the distinct intervals.
    assert plan.touched("runners") <= 3 * 1_501


@WAYS
def test_profiles_with_ready_runs_cost_a_probe_each(conn: Connection, way: str) -> None:
    values = {"most": queues.MOST_PROFILES, "least": 0, "entries": queues.MOST_ENTRIES}
    plan = explain(conn, queues._READY_PROFILES, values | {"each": 0}, way=way)
    assert plan.indexes("runs") == {"ix_runs_claim"}
    assert plan.touched("runs") <= 61
    counted = explain(conn, queues._READY_PROFILES, values | {"each": 50}, way=way)
    assert counted.indexes("runs") == {"ix_runs_claim"}
    assert counted.touched("runs") <= 61 + 60 * 50


def test_queue_of_many_profiles_is_read_less_far() -> None:
    """Bound the entries of the index that one explanation reads."""
    assert queues.most_read(1) == queues.MOST_READ
    assert all(queues.most_read(number) * number <= queues.MOST_ENTRIES for number in (1, 10, 100, 1_000))
