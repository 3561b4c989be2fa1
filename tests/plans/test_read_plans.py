"""Check the cost of the reads of a console: by the rows of a page or a bound, never by the length of the history."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text

from models.auth.audit import ActFilter, page_acts
from models.core.callers import ADMIN, Caller, Role
from models.monitoring.cluster import read_cluster
from models.overview.counts import count_runs
from models.overview.queues import read_queues
from models.overview.series import By, Metric, read_series
from models.overview.system import read_system
from models.runs import search
from models.runs.lists import SessionFilter, list_sessions
from models.runs.search import Bound, FoundRuns, RunSearch, search_runs
from models.runs.search_sql import Order
from tests.support.query_plans import plans_of

WAYS = pytest.mark.parametrize("way", ["custom", "generic"])
UNFINISHED = 40

# 20,000 ended runs, 2 % of them failed, 4 stopped; 40 unfinished ones; totals by the minute, of all, of one owner, and
# of agents.
FILL = """
ALTER TABLE runs SET (autovacuum_enabled = off);
INSERT INTO demand_profiles (hash, tags) SELECT 'hash ' || n, '{}' FROM generate_series(1, 3) n;
INSERT INTO sessions (session_id, incarnation, status, owner)
SELECT 'ses_' || lpad(to_hex(n), 32, '0'), n, 'finished', CASE WHEN n % 2 = 0 THEN 'ann' END
FROM generate_series(1, 20040) n;
INSERT INTO runs (run_id, session_id, session_seq, owner, type, agent_name, parameters, execution_mode, demands,
    profile_id, no_match_timeout_seconds, status, ready, error, labels, created_at, completed_at, claim_token,
    runner_id, match_deadline_at, replay_of)
SELECT 'run_' || lpad(to_hex(n), 32, '0'), 'ses_' || lpad(to_hex(n), 32, '0'), 1,
    CASE WHEN n % 2 = 0 THEN 'ann' END, 'start_session', 'agent-' || n % 7, '{}', 'sync', '{}', 1 + n % 3, 300,
    s.status, s.status = 'pending' AND n % 3 > 0, CASE WHEN s.status = 'failed' THEN 'Broken pipe' END,
    CASE WHEN n % 2000 = 0 THEN '{"team":"rare"}'::jsonb WHEN n % 2 = 0 THEN '{"team":"all"}'::jsonb END,
    now() - (20040 - n) * interval '10 seconds',
    CASE WHEN n <= 20000 THEN now() - (20040 - n) * interval '9 seconds' END,
    CASE WHEN n > 20020 THEN 'token ' || n END, CASE WHEN n > 20020 THEN 'lnch_' || n % 5 END,
    CASE WHEN s.status = 'pending' AND n % 3 > 0 THEN now() + interval '5 minutes' END,
    CASE WHEN n % 100 < 50 THEN 'run_' || n % 2 END
FROM generate_series(1, 20040) n
CROSS JOIN LATERAL (SELECT CASE WHEN n > 20020 THEN 'running' WHEN n > 20000 THEN 'pending'
    WHEN n % 5000 = 1 THEN 'stopped' WHEN n % 50 = 0 THEN 'failed' ELSE 'completed' END AS status) s;
INSERT INTO run_totals (step, grouped_by, owner, measure, period, label, bucket, number)
SELECT 60, g.grouped_by, g.owner, m, date_bin('1 minute', now(), TIMESTAMPTZ 'epoch') - n * interval '1 minute', g.label,
    0, 1
FROM generate_series(0, 1439) n,
    unnest(ARRAY['submitted', 'claimed', 'completed', 'failed', 'stopped']) m,
    (SELECT 'all', '', '' UNION ALL SELECT 'owner', 'ann', '' UNION ALL SELECT 'owner', 'bob', ''
     UNION ALL SELECT 'profile', '', '1'
     UNION ALL SELECT 'agent', '', 'agent ' || a FROM generate_series(1, 20) a) g(grouped_by, owner, label);
INSERT INTO audit_log (act, actor, target) SELECT 'run_stopped', 'key:' || n % 3, 'run_' || n
FROM generate_series(1, 5000) n;
ANALYZE;
"""


@pytest.fixture
def conn(conn: Connection) -> Connection:
    """Choose plans as processes of ours do."""
    conn.exec_driver_sql("SET LOCAL enable_seqscan = off")
    return conn


NOW = datetime.now(UTC)
# Filters; rows that may be touched for a page of 10 within a bound of 1,000 rows; indexes.
PAGE = 3 * 11
PENDING = {"ix_runs_pending"}
IN_HAND = {"ix_runs_in_hand", "ix_runs_one_active"}
# Indexes of one owner's runs, instead of those of all.
OF_OWNER = {"ix_runs_of_owner", "ix_runs_pending_of_owner", "ix_runs_unsuccessful_of_owner"}
CASES: dict[str, tuple[dict[str, Any], int, set[str]]] = {
    "newest": ({}, PAGE, {"ix_runs_newest"}),
    "stopped": ({"statuses": ("stopped",)}, PAGE, {"ix_runs_unsuccessful"}),
    "running": ({"statuses": ("running",)}, 2 * UNFINISHED, IN_HAND),
    "unfinished": ({"not_statuses": ("completed", "failed", "stopped")}, 3 * UNFINISHED, IN_HAND | PENDING),
    "pending": ({"statuses": ("pending",)}, PAGE, PENDING),
    "agent of pending": ({"statuses": ("pending",), "agent_name": "none"}, UNFINISHED, PENDING),
    "waiting": ({"ready": False}, 2 * UNFINISHED, {"ix_runs_due"} | PENDING),
    "failed": ({"statuses": ("failed",)}, PAGE, {"ix_runs_unsuccessful"}),
    "last ended": ({"order": Order.ENDED}, PAGE, {"ix_runs_ended"}),
    "ended": ({"order": Order.ENDED, "ended_before": NOW - timedelta(days=1)}, PAGE, {"ix_runs_ended"}),
    "period": ({"created_before": NOW - timedelta(days=1)}, PAGE, {"ix_runs_newest"}),
    "ids": ({"run_ids": (f"run_{5:032x}", f"run_{6:032x}")}, 4, set()),
    "begin of an id": ({"id_start": f"run_{4096:032x}"[:-1]}, 2 * 16, set()),
    "begin of a session's id": ({"id_start": f"ses_{4096:032x}"[:-1]}, 2 * 16, {"ix_runs_session"}),
    "replays": ({"replay_of": "run_0"}, PAGE, {"ix_runs_replays"}),
    "rare label": ({"labels": {"team": "rare"}}, 100 + PAGE, {"ix_runs_labels", "ix_runs_newest"}),
    "unknown agent": ({"agent_name": "none"}, 1000, {"ix_runs_newest"}),
    "error": ({"error_contains": "nowhere"}, 1000, {"ix_runs_newest"}),
    "runner": ({"runner_id": "lnch_none", "order": Order.ENDED}, 1000, {"ix_runs_ended"}),
}


@WAYS
@pytest.mark.parametrize("role", [Role.ADMIN, Role.USER])
@pytest.mark.parametrize("case", CASES)
def test_search_touches_a_page_or_its_bound(conn: Connection, case: str, role: Role, way: str) -> None:
    """Read no more of 20,040 runs than a page, what is unfinished, or the bound."""
    filters, most, indexes = CASES[case]
    caller = ADMIN if role is Role.ADMIN else Caller(Role.USER, "ann")
    if role is Role.USER and indexes == {"ix_runs_ended"}:
        # The index has the runs of all owners.
        most = 1000
    bound = Bound(rows=1000, rare=100)

    plans = plans_of(
        conn, lambda: search_runs(conn, caller, RunSearch(summary=True, **filters), limit=10, bound=bound), way=way
    )

    touched = [plan.touched("runs") for plan in plans]
    used = set.union(*(plan.indexes("runs") for plan in plans))
    assert sum(touched) <= 2 * most, (touched, used)
    assert used <= indexes | {"pk_runs"} | (OF_OWNER if role is Role.USER else set())


def search_stops_when_time_is_over(conn: Connection) -> None:
    """Leave no time at all: the first step is the last one."""
    found = search_runs(conn, ADMIN, RunSearch(agent_name="none", summary=True), limit=10, bound=Bound(seconds=0))
    assert isinstance(found, FoundRuns)
    last = conn.execute(text("SELECT created_at FROM runs ORDER BY created_at DESC, run_id DESC OFFSET 999 LIMIT 1"))
    assert found.searched_until == last.scalar_one(), "the search went on"


def test_search_stops_when_time_is_over(conn: Connection) -> None:
    search_stops_when_time_is_over(conn)


def frequent_label_is_not_read_wholly(conn: Connection) -> None:
    """Search for a label of each second run and an agent that is nowhere."""
    conn.exec_driver_sql("SET LOCAL enable_seqscan = off")
    which = RunSearch(labels={"team": "all"}, agent_name="none", summary=True)
    plans = plans_of(conn, lambda: search_runs(conn, ADMIN, which, limit=10, bound=Bound(rows=500, rare=100)))
    assert not any("ix_runs_labels" in plan.indexes("runs") for plan in plans), "the whole label was read"


def test_frequent_label_is_not_read_wholly(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planner's statistics say how frequent it is."""
    monkeypatch.setattr(search, "LABELLED_ENTRIES", 1_000)
    frequent_label_is_not_read_wholly(conn)


@WAYS
@pytest.mark.parametrize("status", ["pending", "running", "idle", "stopping", "failed", "stopped"])
def test_sessions_of_status_are_read_by_their_index(conn: Connection, status: str, way: str) -> None:
    conn.execute(text("UPDATE sessions SET status = :status WHERE session_id LIKE '%00'"), {"status": status})
    which = SessionFilter(statuses=(status,))

    plans = plans_of(conn, lambda: list_sessions(conn, ADMIN, which, limit=10), way=way)

    assert set.union(*(plan.indexes("sessions") for plan in plans)) == {"ix_sessions_unfinished"}
    assert sum(plan.touched("sessions") for plan in plans) <= 11


ANN = Caller(Role.USER, "ann")


def _curve(metric: Metric, caller: Caller, by: By | None = None) -> Callable[[Connection], object]:
    return lambda conn: read_series(conn, caller, metric, by, step=300, since=NOW - timedelta(days=1), until=NOW)


READS: dict[str, Callable[[Connection], object]] = {
    "counts": lambda conn: count_runs(conn, ADMIN, since=NOW - timedelta(hours=1)),
    "counts of an owner": lambda conn: count_runs(conn, ANN, since=NOW - timedelta(hours=1)),
    "queues": lambda conn: read_queues(conn, ADMIN),
    "queues of an owner": lambda conn: read_queues(conn, ANN),
    "series": _curve(Metric.SUBMITTED, ADMIN),
    "series by status": _curve(Metric.ENDED, ADMIN, By.STATUS),
    "series of an owner": _curve(Metric.ENDED, ANN, By.STATUS),
    "snapshot": lambda conn: read_cluster(conn, ["stats"]),
    "audit": lambda conn: page_acts(conn, ActFilter(by="key:1"), limit=10),
    "system": read_system,
}


@WAYS
@pytest.mark.parametrize("read", READS)
def test_overview_reads_unfinished_runs_and_its_window(conn: Connection, read: str, way: str) -> None:
    """Read no ended run, and of the rollup the rows of the curve alone: three measures of a day at most."""
    plans = plans_of(conn, lambda: READS[read](conn), way=way)

    assert sum(plan.touched("runs") for plan in plans) <= 2 * UNFINISHED
    assert set.union(*(plan.indexes("run_totals") for plan in plans)) <= {"pk_run_totals"}
    assert sum(plan.touched("run_totals") for plan in plans) <= 3 * 1440
    assert set.union(*(plan.indexes("runs") for plan in plans)) <= PENDING | IN_HAND | {"ix_runs_pending_of_owner"}
    assert sum(plan.touched("audit_log") for plan in plans) <= 100
