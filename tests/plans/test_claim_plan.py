"""Check the cost of claims and polls: by the runs they take, never by the queue's length."""

from typing import Any

import pytest
from sqlalchemy import Connection, Engine, TextClause, text

from models.claims import (
    ageing,
    claim,
    delivery,
    dispatch,
    matching,
    orders,
    parking,
    poll_stops,
    polls,
    watermarks,
)
from models.claims.watermarks import HIGHEST, LOWEST
from models.state import session_status, transitions
from tests.support.query_plans import Plan, explain

MINE, BLOCKED, DELAYED = 1, 2, 3
PROFILES = 200
WAYS = pytest.mark.parametrize("way", ["custom", "generic"])

# 60,000 runs: ended, not matching, delayed, some in hand; 20 of each of the other 198 profiles.
FILL = """
ALTER TABLE runs SET (autovacuum_enabled = off);
INSERT INTO demand_profiles (hash, tags) SELECT 'hash ' || n, '{}' FROM generate_series(1, 10000) n;
INSERT INTO runners (runner_id, hostname, project_dir, executor_profile, tags, told_interval, capacity)
SELECT 'lnch_' || n, 'h', '/p', 'e', '{}', 60, CASE WHEN n % 2 = 0 THEN 1000 END FROM generate_series(1, 10000) n;
INSERT INTO sessions (session_id, incarnation, status)
SELECT 'ses_' || n, n, 'pending' FROM generate_series(1, 60000) n;
INSERT INTO runs (run_id, session_id, session_seq, type, parameters, execution_mode, demands, profile_id, status, ready,
    priority, no_match_timeout_seconds, not_before, match_deadline_at, completed_at, claim_token, runner_id,
    registration, claim_poll_id, claim_deadline_at)
SELECT 'run_' || lpad(to_hex(n), 32, '0'), 'ses_' || n, 1, 'start_session', '{}', 'sync', '{}',
    CASE WHEN n <= 20000 THEN 1 + n % 200 WHEN n <= 40000 THEN 2 WHEN n <= 52000 THEN 3 WHEN n <= 56000 THEN 1
         ELSE 3 + n % 198 END,
    CASE WHEN n <= 20000 THEN 'completed' WHEN n > 52000 AND n <= 56000 THEN 'claimed' ELSE 'pending' END,
    n > 20000 AND n <= 40000 OR n > 56000, CASE WHEN n <= 40000 THEN 50 ELSE 0 END, 300,
    CASE WHEN n > 40000 AND n <= 52000 THEN now() + interval '1 day' END,
    CASE WHEN n > 20000 AND n <= 40000 OR n > 56000 THEN now() + interval '5 minutes' END,
    CASE WHEN n <= 20000 THEN now() END,
    CASE WHEN n > 52000 AND n <= 56000 THEN 'token ' || n END,
    CASE WHEN n > 52000 AND n <= 56000 THEN 'lnch_' || 1 + n % 1000 END,
    CASE WHEN n > 52000 AND n <= 56000 THEN 1 + n % 1000 END,
    CASE WHEN n > 52000 AND n <= 56000 THEN 'poll_' || n END,
    CASE WHEN n > 52000 AND n <= 56000 THEN now() + interval '1 minute' END
FROM generate_series(1, 60000) n;
INSERT INTO waiting_polls (poll_id, runner_id, registration, instance, wanted)
SELECT 'waiting_' || n, 'lnch_' || n, n, 'web-1', 1 FROM generate_series(1, 10000) n;
INSERT INTO stop_commands (runner_id, registration, session_id, deadline_at)
SELECT 'lnch_' || n, n, 'ses_' || n, now() FROM generate_series(1, 10000) n WHERE n <> 900;
ANALYZE;
"""


def looking(profile_ids: list[int], most: int = 9, floor: str | None = None) -> dict[str, Any]:
    return {
        "profiles": profile_ids,
        "lows": [LOWEST if floor is None else 0] * len(profile_ids),
        "highs": [HIGHEST if floor is None else 0] * len(profile_ids),
        "floors": [floor] * len(profile_ids),
        "passed": [],
        "most": most,
    }


def candidates(conn: Connection, values: dict[str, Any], *, way: str) -> Plan:
    plan = explain(conn, claim._CANDIDATES, values, way=way)
    assert plan.indexes("runs") <= {"ix_runs_claim"}
    return plan


@WAYS
def test_claim_reads_no_run_it_may_not_take(conn: Connection, way: str) -> None:
    """Skip 20,000 ready runs of another profile and higher priority, and 12,000 delayed ones."""
    plan = candidates(conn, looking([MINE]), way=way)

    assert (plan.touched("runs"), plan.buffers <= 8) == (0, True)


@WAYS
def test_claim_reads_no_more_runs_than_it_asks_for(conn: Connection, way: str) -> None:
    """Choose from 20,000 matching ones."""
    plan = candidates(conn, looking([BLOCKED], most=9), way=way)

    assert plan.touched("runs") == 9
    assert plan.buffers <= 40


@WAYS
def test_claim_over_200_profiles_costs_200_probes(conn: Connection, way: str) -> None:
    """Descend the index once per profile, and read its best runs."""
    plan = candidates(conn, looking(list(range(1, PROFILES + 1)), most=9), way=way)

    assert plan.touched("runs") <= PROFILES * 9
    assert plan.buffers <= PROFILES * 16


@WAYS
def test_claim_scan_begins_at_the_watermark(conn: Connection, way: str) -> None:
    """Read no index entry below it."""
    values = looking([BLOCKED], floor=f"run_{35_000:032x}") | {"lows": [50], "highs": [50]}
    plan = candidates(conn, values, way=way)

    assert plan.touched("runs") == 9
    assert any("run_id" in node.get("Index Cond", "") for node in plan.scans("runs"))


@WAYS
def test_aged_candidates_cost_heads_of_priorities_in_use(conn: Connection, way: str) -> None:
    """Of 20,000 runs of one priority and three others, read nine each at most, with one probe per priority."""
    conn.execute(
        text("UPDATE runs SET priority = 60 + CAST(right(session_id, 1) AS integer) WHERE session_id = ANY(:lows)"),
        {"lows": ["ses_30001", "ses_30002", "ses_30003"]},
    )
    plan = explain(conn, ageing.AGED_CANDIDATES, looking([BLOCKED, MINE], most=9) | {"ageing": 60.0}, way=way)

    assert plan.indexes("runs") == {"ix_runs_claim"}
    assert plan.touched("runs") <= 9 + 3 + 4
    assert plan.buffers <= 120


@WAYS
def test_aged_candidates_begin_at_the_watermark(conn: Connection, way: str) -> None:
    """Skip a busy queue's dead entries."""
    values = looking([BLOCKED], floor=f"run_{35_000:032x}") | {"lows": [50], "highs": [50], "ageing": 60.0}
    plan = explain(conn, ageing.AGED_CANDIDATES, values, way=way)

    assert plan.touched("runs") == 9
    assert any("run_id" in node.get("Index Cond", "") for node in plan.scans("runs"))


@WAYS
def test_taking_touches_taken_runs_only(conn: Connection, way: str) -> None:
    """Lock and update each once, by its key."""
    values = {
        "run_ids": [f"run_{number:032x}" for number in (20_001, 30_000, 40_000)],
        "tokens": ["a", "b", "c"],
        "polls": ["a", "b", "c"],
        "runners": ["lnch_1"] * 3,
        "registrations": [1] * 3,
        "claimants": ["machine"] * 3,
        "delivered": True,
        "claim_timeout": 15,
        "start_timeout": 120,
    }
    plan = explain(conn, claim._TAKE, values, way=way)

    assert plan.indexes("runs") == {"pk_runs"}
    assert plan.touched("runs") == 6


RUNNERS = {"runner_ids": ["lnch_2", "lnch_4"]}
POLLS = {"polls": ["poll_53000", "poll_53001", "none"]}

# Statement, values, the index by which it reads each table, and the most rows it may read.
CASES: dict[str, tuple[TextClause, dict[str, Any], dict[str, tuple[str, int]]]] = {
    "runs in hand": (claim._IN_HAND, RUNNERS, {"runs": ("ix_runs_in_hand", 8)}),
    "capacity": (claim._LOCK_CAPACITY, RUNNERS, {"runners": ("pk_runners", 2)}),
    "runs of polls": (delivery._OF_POLLS, POLLS, {"runs": ("ix_runs_poll", 2)}),
    "heads of busy queues": (
        watermarks._HEADS,
        {"profiles": [MINE, BLOCKED], "priorities": [0, 50]},
        {"runs": ("ix_runs_claim", 1)},
    ),
    "confirming": (
        delivery._CONFIRM,
        {"run_ids": [f"run_{53_000:032x}"], "tokens": ["token 53000"], "start_timeout": 120},
        {"runs": ("pk_runs", 2)},
    ),
    "looking at polls": (
        polls._LOOK,
        {"polls": ["poll_53000", "new"], "runner_ids": ["lnch_2", "lnch_900"], "forget": 86_400, "again": 10},
        {
            "runners": ("pk_runners", 2),
            "runs": ("ix_runs_poll", 1),
            "stop_commands": ("ix_stop_commands_runner", 1),
            "waiting_polls": ("pk_waiting_polls", 0),
        },
    ),
    "sending stops": (orders._SEND_STOPS, RUNNERS | {"again": 10}, {"stop_commands": ("ix_stop_commands_runner", 4)}),
    "sending a leave": (orders._SEND_LEAVE, RUNNERS, {"runners": ("pk_runners", 4)}),
    "locking a parked poll": (
        polls._LOCK_WAITING,
        {"polls": ["waiting_1"]},
        {"waiting_polls": ("pk_waiting_polls", 2)},
    ),
    "sending stops to parked polls": (
        poll_stops._ANSWER,
        {"polls": ["waiting_2", "waiting_4"], **RUNNERS, "registrations": [2, 4], "again": 10},
        {
            "waiting_polls": ("pk_waiting_polls", 6),
            "runners": ("pk_runners", 4),
            "stop_commands": ("ix_stop_commands_runner", 6),
        },
    ),
    "marking stops undelivered": (
        poll_stops._MARK_STOPS_UNDELIVERED,
        RUNNERS | {"sessions": ["ses_2", "ses_4"]},
        {"stop_commands": ("uq_stop_commands_session_id", 4)},
    ),
    "marking a leave undelivered": (poll_stops._MARK_LEAVES_UNDELIVERED, RUNNERS, {"runners": ("pk_runners", 4)}),
    "holders of polls": (parking._HOLDERS, RUNNERS, {"waiting_polls": ("ix_waiting_polls_runner", 2)}),
    "dropping polls": (parking._DROP, RUNNERS, {"waiting_polls": ("ix_waiting_polls_runner", 4)}),
    "a page of parked polls": (
        dispatch._WAITING,
        {"seen": 86_400, "after": "waiting_2", "most": 5},
        {"waiting_polls": ("pk_waiting_polls", 5)},
    ),
    "polls parked last": (
        dispatch._RECENT,
        {"seen": 86_400, "instance": "web-2", "most": 5},
        {
            "waiting_polls": ("pk_waiting_polls", 5),
            "runners": ("pk_runners", 5),
            "runs": ("ix_runs_in_hand", 5 * 4),
        },
    ),
    "locking some": (
        dispatch._LOCK_SOME,
        {"polls": ["waiting_1"], "runner_ids": ["lnch_2"]},
        {"waiting_polls": ("pk_waiting_polls", 1), "runners": ("pk_runners", 1)},
    ),
    "unparking": (parking._UNPARK, {"polls": ["waiting_1"]}, {"waiting_polls": ("pk_waiting_polls", 1)}),
    "finding profiles": (
        matching._FIND,
        {"hashes": ["hash 7", "hash 8"]},
        {"demand_profiles": ("uq_demand_profiles_hash", 2)},
    ),
    "newer profiles": (
        matching._NEWER,
        {"known": 9_998, "skipped": [7]},
        {"demand_profiles": ("pk_demand_profiles", 3)},
    ),
}


@WAYS
@pytest.mark.parametrize("case", CASES)
def test_queries_around_a_claim_read_their_own_rows_only(conn: Connection, case: str, way: str) -> None:
    """Scan no table that grows."""
    statement, values, expected = CASES[case]
    plan = explain(conn, statement, values, way=way)
    for table, (index, most) in expected.items():
        allowed = {index, f"pk_{table}"}
        assert plan.indexes(table) <= allowed, table
        assert plan.touched(table) <= most, table


@WAYS
def test_settling_session_reads_its_unfinished_runs_only(conn: Connection, way: str) -> None:
    """A session of 5,000 turns costs no more than one of two."""
    conn.execute(
        text(
            """INSERT INTO runs (run_id, session_id, session_seq, type, parameters, execution_mode, demands, profile_id,
                                 status, no_match_timeout_seconds, completed_at)
               SELECT 'run_turn_' || n, 'ses_20001', n + 1, 'resume_session', '{}', 'sync', '{}', 1, 'completed', 300,
                      now() FROM generate_series(1, 5000) n""",
        ),
    )
    sessions = ["ses_20001", "ses_53000"]
    values = {
        "sessions": sessions,
        "outcomes": [None] * 2,
        "unless_live": [False] * 2,
        "lives": ["keep"] * 2,
        "runners": [None] * 2,
        "registrations": [None] * 2,
        "resumed": [False] * 2,
        "parents": [None] * 2,
        "signs": [False] * 2,
    }
    plan = explain(conn, session_status._UPDATE_STATUS, values, way=way)

    assert plan.indexes("runs") <= {"ix_runs_unfinished", "ix_runs_one_active", "pk_runs"}
    assert plan.indexes("sessions") == {"pk_sessions"}
    assert plan.touched("runs") <= 8
    assert plan.touched("sessions") <= 6


@WAYS
def test_moving_a_run_touches_that_run_only(conn: Connection, way: str) -> None:
    """Find it by its key, fenced by status and token."""
    values = {
        "run_ids": [f"run_{53_000:032x}"],
        "formers": ["claimed"],
        "tokens": ["token 53000"],
        "statuses": ["pending"],
        "errors": [None],
        "starts": [False],
        "by_us": [False],
        "stop_causes": [None],
        "stop_seconds": [None],
        "not_for": [None],
        "fruitless": [False],
        "unstarts": [False],
        "delays": [None],
        "remember": [None],
    }
    plan = explain(conn, transitions._MOVE, values, way=way)

    assert plan.indexes("runs") == {"pk_runs"}
    assert plan.touched("runs") == 1


# Two bursts; ANALYZE ran between them, when the first had ended.
BURSTS = """
ALTER TABLE runs SET (autovacuum_enabled = off);
INSERT INTO sessions (session_id, incarnation, status) SELECT 'ses_' || n, n, 'pending' FROM generate_series(1, 40000) n;
INSERT INTO runs (run_id, session_id, session_seq, type, parameters, execution_mode, demands, profile_id, status, ready,
    no_match_timeout_seconds, match_deadline_at)
SELECT 'run_' || lpad(to_hex(n), 32, '0'), 'ses_' || n, 1, 'start_session', '{}', 'sync', '{}', 2, 'pending', true, 300,
    now() + interval '5 minutes' FROM generate_series(1, 20000) n;
UPDATE runs SET status = 'completed', ready = false, completed_at = now();
ANALYZE;
INSERT INTO runs (run_id, session_id, session_seq, type, parameters, execution_mode, demands, profile_id, status, ready,
    no_match_timeout_seconds, match_deadline_at)
SELECT 'run_' || lpad(to_hex(n), 32, '0'), 'ses_' || n, 1, 'start_session', '{}', 'sync', '{}', 2, 'pending', true, 300,
    now() + interval '5 minutes' FROM generate_series(20001, 40000) n;
"""


@WAYS
def test_burst_is_claimed_well_with_statistics_of_an_empty_queue(engine: Engine, way: str) -> None:
    """Nothing was pending at the last ANALYZE: every index of ready runs looks empty to the planner."""
    with engine.begin() as conn:
        conn.execute(text(BURSTS))
        assert candidates(conn, looking([MINE]), way=way).touched("runs") == 0
        assert candidates(conn, looking([BLOCKED, 7], most=9), way=way).touched("runs") <= 9
