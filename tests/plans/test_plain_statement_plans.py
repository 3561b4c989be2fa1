"""Check the cost of the statements of plain polls and submissions: by the polls, and the runs taken or added."""

from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from models.claims import plain_polls
from models.claims.matching import Demands
from models.runs import submit_plain
from models.runs.submission import demands_of_run
from tests.plans import test_claim_plan
from tests.plans.test_claim_plan import BLOCKED, BURSTS, MINE, WAYS, looking
from tests.support.db_verbs import start_submission
from tests.support.query_plans import LARGE, Plan, explain, numbers_of_plans

FILL = test_claim_plan.FILL


def polling(profile_ids: list[int], number: int = 2, *, parked: bool = False) -> dict[str, Any]:
    """Return the values of a statement of plain polls, of runners without a capacity or a stop."""
    ids = [f"waiting_{place}" if parked else f"poll_{place}" for place in range(901, 901 + 2 * number, 2)]
    runner_ids = [f"lnch_{place}" for place in range(901, 901 + 2 * number, 2)]
    registrations = list(range(901, 901 + 2 * number, 2))
    wanted = [1] * number
    return looking(profile_ids, most=number + plain_polls.SPARE_CANDIDATES) | {
        "polls": ids,
        "runner_ids": runner_ids,
        "registrations": registrations,
        "registered": [None] * number,
        "subjects": [None] * number,
        "instances": ["web-1"] * number,
        "wanted": wanted,
        "forget": 86_400.0,
        "again": 10.0,
        "delivered": True,
        "claim_timeout": 15.0,
        "start_timeout": 120.0,
        "newest_profile": 1_000_000,
        "skipped_profiles": [1_000_000],
        "tokens": [f"new token {place}" for place in range(number)],
        "complete": True,
    }


_USUAL = """
WITH usual AS (UPDATE runners SET last_seen = now() WHERE registration BETWEEN 901 AND 999 RETURNING runner_id)
DELETE FROM stop_commands WHERE runner_id IN (SELECT runner_id FROM usual)
"""
PLANNED = {"run_ids": [f"run_{place:032x}" for place in (30_000, 30_001)], "takers": [1, 2]}
PLAIN: dict[str, tuple[Any, dict[str, Any]]] = {
    "answering": (plain_polls._ANSWER, {}),
    "answering by a plan": (plain_polls._ANSWER_PLANNED, PLANNED),
    "claiming for parked polls": (plain_polls._CLAIM_PARKED, {}),
    "claiming for parked polls by a plan": (plain_polls._CLAIM_PARKED_PLANNED, PLANNED),
}


def plain(conn: Connection, case: str, profile_ids: list[int], number: int = 2, *, way: str) -> Plan:
    """Execute a statement of plain polls for runners without stops, and return its plan."""
    statement, more = PLAIN[case]
    conn.execute(text(_USUAL))
    values = polling(profile_ids, number, parked="parked" in case) | more
    plan = explain(conn, statement.element, values, way=way)
    assert plan.indexes("runs") <= {"ix_runs_claim", "ix_runs_poll", "ix_runs_one_active", "pk_runs"}
    assert plan.indexes("runners") == {"pk_runners"}
    assert plan.indexes("waiting_polls") <= {"pk_waiting_polls"}
    assert plan.indexes("stop_commands") <= {"ix_stop_commands_runner"}
    assert plan.indexes("demand_profiles") <= {"pk_demand_profiles"}
    assert plan.touched("runners") == number
    assert plan.touched("demand_profiles") <= 2
    return plan


@WAYS
@pytest.mark.parametrize("case", PLAIN)
def test_plain_polls_read_their_own_rows_only(conn: Connection, case: str, way: str) -> None:
    """Choose from 20,000 runs: read the candidates twice, and the runs taken once more."""
    found = plain(conn, case, [BLOCKED], way=way)

    assert found.touched("runs") <= 2 * 10 + 2
    assert found.touched("waiting_polls") <= 3 * 2
    assert conn.execute(text("SELECT count(*) FROM runs WHERE claim_token LIKE 'new token%'")).scalar_one() == 2


@pytest.mark.parametrize("case", PLAIN)
def test_plain_polls_keep_their_plan_behind_a_backlog(conn: Connection, case: str) -> None:
    """Planning takes longer than execution: Postgres plans five times, then keeps a plan that seems to cost no more."""
    statement, more = PLAIN[case]
    conn.execute(text(_USUAL))
    conn.execute(text(LARGE))
    values = polling([BLOCKED], 1, parked="parked" in case) | more

    assert numbers_of_plans(conn, statement, values, 8) == (5, 3)


@WAYS
@pytest.mark.parametrize("case", ["answering", "claiming for parked polls"])
def test_plain_polls_without_a_run_read_none(conn: Connection, case: str, way: str) -> None:
    """Skip 20,000 ready runs of another profile and 12,000 delayed ones."""
    found = plain(conn, case, [MINE], way=way)

    assert found.touched("runs") == 0
    assert found.touched("waiting_polls") <= 4 * 2


@WAYS
@pytest.mark.parametrize("case", ["answering", "claiming for parked polls"])
def test_cost_of_plain_polls_is_linear_in_their_number(conn: Connection, case: str, way: str) -> None:
    """Take 32 runs without reading all of them for each."""
    found = plain(conn, case, [BLOCKED], 32, way=way)

    assert found.touched("runs") <= 2 * 40 + 32
    assert found.touched("waiting_polls") <= 4 * 32


@WAYS
def test_end_of_plain_polls_reads_their_own_rows_only(conn: Connection, way: str) -> None:
    found = explain(conn, plain_polls._GIVE_UP, {"polls": ["waiting_1", "waiting_2"]}, way=way)

    assert found.indexes("waiting_polls") == {"pk_waiting_polls"}
    assert found.indexes("runs") == {"ix_runs_poll"}
    assert (found.touched("waiting_polls"), found.touched("runs")) == (2, 0)


_POLLERS = """
INSERT INTO runners (runner_id, registration, hostname, project_dir, executor_profile, tags, told_interval)
OVERRIDING SYSTEM VALUE SELECT 'lnch_' || n, n, 'h', '/p', 'e', '{}', 60 FROM generate_series(1, 1000) n;
"""


@WAYS
def test_plain_polls_claim_a_burst_well_with_statistics_of_an_empty_queue(engine: Engine, way: str) -> None:
    """Nothing was pending at the last ANALYZE: every index of ready runs looks empty to the planner."""
    with engine.begin() as conn:
        conn.execute(text(BURSTS))
        conn.execute(text(_POLLERS))
        assert plain(conn, "answering", [BLOCKED, 7], 32, way=way).touched("runs") <= 2 * 40 + 32


_KEYS = """
INSERT INTO idempotency_keys (caller, key, body_hash, run_id, session_id)
SELECT '', 'key ' || n, '', 'run', 'ses' FROM generate_series(1, 2000) n;
ANALYZE idempotency_keys;
"""
_AGENTS = """
INSERT INTO runner_agents (name, runner_id, command) SELECT 'agent ' || n, 'lnch_1', 'c' FROM generate_series(1, 2000) n;
ANALYZE runner_agents;
INSERT INTO registry_entries (kind, name, record, size) SELECT 'agents', 'agent ' || n, '{}', 2 FROM generate_series(1, 2000) n;
ANALYZE registry_entries;
"""
_RENAME = text("UPDATE demand_profiles SET hash = :new WHERE hash = :former")
_STORED = text("SELECT count(*) FROM runs WHERE ready AND run_id = ANY(:run_ids)")


def submitted(conn: Connection, number: int, *, keyed: bool, way: str, named: bool = False) -> Plan:
    """Submit so many runs of two profiles, by the statement of the plain case; return its plan."""
    conn.execute(text(_KEYS))
    conn.execute(text(_AGENTS))
    items = [
        start_submission(
            additional_demands=Demands(tags=(f"tag {place % 2}",)),
            idempotency_key=f"new {place}" if keyed else None,
            agent_name=f"unknown {place}" if named else None,
        )
        for place in range(number)
    ]
    for place, item in enumerate(items[:2], 1):
        conn.execute(_RENAME, {"new": demands_of_run(item, None).hash, "former": f"hash {place}"})
    plan = explain(conn, submit_plain._SUBMIT, submit_plain._parameters(items), way=way)
    stored = conn.execute(_STORED, {"run_ids": [item.run_id for item in items]}).scalar_one()
    assert stored == number
    return plan


@WAYS
@pytest.mark.parametrize("keyed", [False, True], ids=["without keys", "with keys"])
def test_plain_submissions_read_their_profiles_only(conn: Connection, *, keyed: bool, way: str) -> None:
    """Scan no table, compare no item with each other one, and look up each distinct profile once."""
    number = 64
    plan = submitted(conn, number, keyed=keyed, way=way)

    assert plan.indexes("demand_profiles") == {"uq_demand_profiles_hash"}
    assert plan.touched("demand_profiles") == 2
    assert plan.indexes("idempotency_keys") <= {"pk_idempotency_keys"}
    assert plan.touched("idempotency_keys") == 0
    assert (plan.touched("runs"), plan.touched("sessions")) == (0, 0)
    assert (plan.indexes("runner_agents"), plan.indexes("registry_entries")) == (set(), set()), "no item names an agent"
    assert discarded(plan) <= 2 * number


@WAYS
def test_plain_submissions_that_name_an_agent_look_each_up_by_its_name(conn: Connection, way: str) -> None:
    plan = submitted(conn, 64, keyed=False, way=way, named=True)

    assert plan.indexes("runner_agents") == {"pk_runner_agents"}
    assert plan.indexes("registry_entries") == {"pk_registry_entries"}
    assert (plan.touched("runner_agents"), plan.touched("registry_entries")) == (0, 0)
    assert discarded(plan) <= 2 * 64


def discarded(plan: Plan) -> float:
    """Return the number of rows that were read, or paired with another row, and then left out."""
    reasons = ("Rows Removed by Filter", "Rows Removed by Join Filter")
    return sum(float(node.get(reason, 0) * node["Actual Loops"]) for node in plan.nodes() for reason in reasons)
