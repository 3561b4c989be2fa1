"""Check that queries of expiry and lists, asked every second or by every client, never scan a large table."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import TextClause, create_engine, text

from models.claims import fleet
from models.expiry import match_deadlines, outages, runners, runs
from models.feed import append, run_timeline, timeline
from models.feed.event_counts import bounds
from models.runners import departure, heartbeat, listing
from models.runs import results
from testkit.servers import PostgresOfTests
from tests.support.clocks import add_outage
from tests.support.db_verbs import DbVerbs
from tests.support.query_plans import explain
from tests.support.reports import claimed, idle, running
from tests.support.scans import analyze, fill, indexes, scanned

WAYS = pytest.mark.parametrize("way", ["custom", "generic"])
LARGE = {"runs", "sessions", "events"}
PROFILES: dict[str, Any] = {
    "profiles": [1000, 1001],
    "matched": [True, False],
    "seconds": [300, 300],
    "untils": [datetime(2100, 1, 1, tzinfo=UTC)] * 2,
    "from_profile": 0,
    "registrations": [1, 2],
    "since": datetime(2000, 1, 1, tzinfo=UTC),
}
LIMITS: dict[str, Any] = {"report_hold": 25.0}


@pytest.fixture(scope="module")
def busy(postgres: PostgresOfTests) -> Iterator[DbVerbs]:
    """Fill a system with history, a queue, work in hand and a past outage."""
    url = postgres.create()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    db = DbVerbs(engine)
    fill(db)
    for begin in (claimed, running, idle):
        for _ in range(5):
            begin(db)
    add_outage(db, "expiry", 3000, 2000)
    db.rows(
        "INSERT INTO events (event_uid, kind, session_id, frame, feed_pos) SELECT 'u' || n, 'event', 'old_' || n % 50, "
        "'{}', 1000000 + n FROM generate_series(1, 20000) n"
    )
    analyze(db)
    yield db
    engine.dispose()
    postgres.drop(url)


def values_at(now: Any) -> dict[str, Any]:
    moments = dict.fromkeys(("now", "delivery_due", "start_due", "ended_before"), now)
    told = {"told": [0, 10, 60], "begun_before": [now] * 3, "due": [now] * 3}
    return {**moments, **told, "most": 500, "run_ids": ["x"], "runner_ids": ["x"], **PROFILES, **LIMITS}


@WAYS
def test_no_candidate_query_of_expiry_scans_runs_or_sessions(busy: DbVerbs, way: str) -> None:
    """Each has a partial index: a million ended runs cost nothing."""
    values = values_at(busy.one("SELECT clock_timestamp()"))
    for module in (runs, runners, match_deadlines, fleet):
        for name, statement in vars(module).items():
            if isinstance(statement, TextClause):
                assert scanned(busy, statement, values, way=way) & LARGE == set(), name


@WAYS
@pytest.mark.parametrize(
    ("module", "name", "index"),
    [
        (runs, "_DUE", "ix_runs_due"),
        (match_deadlines, "_PATIENCES", "ix_runs_unmatched"),
        (match_deadlines, "_DUE", "ix_runs_unmatched"),
        (match_deadlines, "_EXCLUDED", "ix_runs_unmatched"),
        (runs, "_SPENT_CLAIMS", "ix_runs_claim_deadline"),
        (runs, "_TIMED_OUT", "ix_runs_timed"),
        (runs, "_OVERDUE_STOPS", "ix_runs_timed"),
        (runners, "_SESSIONS_WITHOUT_HOLDER", "ix_sessions_live"),
        (runners, "_UNHELD", "ix_runs_unheld"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_each_duty_finds_due_rows_by_its_own_index(busy: DbVerbs, module: Any, name: str, index: str, way: str) -> None:
    """Read them in the order of their deadlines."""
    values = values_at(busy.one("SELECT clock_timestamp()"))
    assert index in indexes(busy, getattr(module, name), values, way=way)


@WAYS
def test_requests_of_runners_scan_no_large_table(busy: DbVerbs, way: str) -> None:
    """Cover heartbeats, registrations, lists of runners and clocks."""
    beat = {"runner_ids": ["x"], "beats": [True], "forget": 86_400.0, "apart": 3.0}
    assert scanned(busy, heartbeat._TOUCH, beat, way=way) & LARGE == set()
    held = {
        "holders": ["x"] * 300,
        "named": [f"run_{number}" for number in range(300)],
        "beating": ["x"],
        "counted": ["x"],
        "started": 60.0,
        "start_timeout": 120.0,
    }
    assert scanned(busy, heartbeat._HOLDING, held, way=way) & LARGE == set()
    page = {"after_row": None, "after_moment": None, "most": 500}
    listed = {"stale_after": 30.0, "forget": 86_400.0, "subject": None, **page}
    assert scanned(busy, listing._LIST, listed, way=way) & LARGE == set()
    assert scanned(busy, departure._IN_HAND, {"runner_ids": ["x"]}, way=way) & LARGE == set()
    assert scanned(busy, departure._LIVE, {"runner_ids": ["x"]}, way=way) & LARGE == set()
    assert scanned(busy, outages._READ, {}, way=way) & LARGE == set()


@WAYS
def test_page_of_events_comes_from_its_session_alone(busy: DbVerbs, way: str) -> None:
    """Read in feed order, without sorting events of other sessions."""
    for run_id in (None, "run_old_7"):
        values = {"session_id": "old_7", "owner": None, "run_id": run_id, "after": 0, "most": 500, "bytes": 1 << 20}
        values |= {"before": timeline.ENDLESS}
        for statement in (timeline._FORWARDS, timeline._BACKWARDS):
            assert scanned(busy, statement, values, way=way) & LARGE == set()
            assert "ix_events_session" in indexes(busy, statement, values, way=way)
    steps = {"session_id": "old_7", "run_id": "run_old_7", "most": 100}
    assert scanned(busy, run_timeline._STEPS, steps, way=way) & LARGE == set()


@WAYS
def test_result_of_run_is_found_among_results_of_its_session(busy: DbVerbs, way: str) -> None:
    """Skip other events of the session and other sessions."""
    values = {"session_id": "old_7", "run_id": "run_old_7"}
    assert scanned(busy, results._NEWEST_OF_RUN, values, way=way) & LARGE == set()
    assert "ix_events_result" in indexes(busy, results._NEWEST_OF_RUN, values, way=way)


@WAYS
def test_events_are_stored_without_scanning_a_large_table(busy: DbVerbs, way: str) -> None:
    """Find their sessions and the runs of their tokens by key."""
    told = [(f"old_{number}", f"token_{number}") for number in range(1, 201)]
    for named in (None, "run_old_7"):
        values = appending(told) | {"runs": [named for _ in told]}
        assert scanned(busy, append._APPEND, values, way=way) & LARGE == set()
        assert scanned(busy, append._APPEND_BOUNDED, values | bounds(100), way=way) & LARGE == set()


@WAYS
def test_event_of_the_active_run_costs_the_same_after_1000_turns(busy: DbVerbs, way: str) -> None:
    """Search all runs of the session only for late events of an ended run."""
    with busy.engine.connect() as connection:
        connection.execute(text(TURNS))
        connection.execute(text(AT_WORK))
        touched = {
            token: explain(connection, append._APPEND, appending([("old_1", token)]), way=way).touched("runs")
            for token in (None, "turn_1000", "turn_1")
        }
        connection.rollback()
    assert touched[None] == touched["turn_1000"] < 10
    assert touched["turn_1"] > 1000


TURNS = """
    INSERT INTO runs (run_id, session_id, session_seq, type, parameters, execution_mode, demands, profile_id, status,
                      no_match_timeout_seconds, completed_at, claim_token)
    SELECT 'run_turn_' || n, 'old_1', 10 + n, 'resume_session', '{}', 'sync', '{}', 1, 'completed', 300, now(),
        'turn_' || n
    FROM generate_series(1, 1000) n
"""

AT_WORK = """
    UPDATE runs SET status = 'running', completed_at = NULL, started_at = now(), runner_id = 'lnch_1', registration = 1
    WHERE claim_token = 'turn_1000'
"""


def appending(told: Sequence[tuple[str, str | None]]) -> dict[str, Any]:
    """Return the parameters of events with these tokens for these sessions."""
    return {
        "sessions": [session_id for session_id, _ in told],
        "owners": [None for _ in told],
        "tokens": [token for _, token in told],
        "runs": [None for _ in told],
        "keys": [None for _ in told],
        "uids": [f"uid_{place}" for place, _ in enumerate(told)],
        "frames": ["{}" for _ in told],
        "types": ["message" for _ in told],
    }
