"""Search runs by any filters: the pages hold what a look at every run finds, whatever the bound."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.core.callers import ADMIN, Caller, Role
from models.core.errors import BadCursor
from models.core.statuses import RunStatus
from models.runs.lists import parse_key
from models.runs.search import BEHIND_ALL_IDS, ENDED_MARK, Bound, FoundRuns, RunSearch, search_runs
from models.runs.search_sql import Order
from runtime.postgres import sync_engine
from runtime.settings import Settings
from tests.support.answer_models import check_fields
from tests.support.callers import client_with, make_key, web_with_auth
from tests.support.databases import Databases
from tests.support.db_verbs import DbVerbs

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NUMBER = 60
FILL = """
INSERT INTO sessions (session_id, incarnation, status, owner, created_at)
SELECT 'ses_' || lpad(to_hex(n), 32, '0'), n, 'finished', CASE WHEN n % 3 > 0 THEN 'ann' END, now()
FROM generate_series(0, :number - 1) n;
INSERT INTO demand_profiles (hash, tags) VALUES ('h', '{}');
INSERT INTO runs (run_id, session_id, session_seq, owner, type, agent_name, parameters, parent_session_id,
    execution_mode, demands, profile_id, no_match_timeout_seconds, status, ready, attempt, max_attempts, priority,
    labels, error, created_at, completed_at, claim_token, runner_id, replay_of)
SELECT 'run_' || lpad(to_hex(n), 32, '0'), 'ses_' || lpad(to_hex(n), 32, '0'), 1, CASE WHEN n % 3 > 0 THEN 'ann' END,
    CASE WHEN n % 4 = 0 THEN 'resume_session' ELSE 'start_session' END, 'agent-' || n % 5, json_build_object('prompt', 'x'),
    CASE WHEN n % 10 = 0 THEN 'ses_parent' END, 'sync', '{}', (SELECT max(profile_id) FROM demand_profiles), 300,
    s.status, s.status = 'pending' AND n % 2 = 0, n % 3, 3, 0,
    CASE WHEN n % 6 = 0 THEN '{"team":"a"}'::jsonb END,
    CASE WHEN s.status = 'failed' THEN 'Broken pipe ' || n || repeat('x', 300) END,
    CAST(:begin AS timestamptz) + n / 2 * interval '1 minute',
    CASE WHEN s.status IN ('completed', 'failed', 'stopped')
         THEN CAST(:begin AS timestamptz) + n % 7 * interval '1 hour' END,
    CASE WHEN s.status NOT IN ('pending') THEN 'token' END, 'lnch_' || n % 2,
    CASE WHEN n % 4 = 1 THEN 'run_replayed' END
FROM generate_series(0, :number - 1) n
CROSS JOIN LATERAL (SELECT (ARRAY['pending', 'claimed', 'running', 'stopping', 'completed', 'failed', 'stopped',
    'completed', 'completed'])[1 + n % 9] AS status) s;
"""
ann = Caller(Role.USER, "ann")


@pytest.fixture(scope="module")
def filled(databases: Databases) -> Iterator[DbVerbs]:
    """Fill a database with runs in every state, for all tests of this file."""
    url = databases.take()
    engine = sync_engine(Settings(database_url=url, redis_url=""))
    db = DbVerbs(engine)
    for statement in FILL.split(";\n")[:-1]:
        db.rows(statement, number=NUMBER, begin=BEGIN)
    yield db
    engine.dispose()
    databases.give_back(url)


def walked(db: DbVerbs, which: RunSearch, caller: Caller, bound: Bound, limit: int) -> list[str]:
    """Return the ids of all pages, in their order; a bounded page goes on from its cursor."""
    found: list[str] = []
    cursor: str | None = None
    for _ in range(10 * NUMBER):
        page = db.do(search_runs, caller, which, limit=limit, after=cursor, bound=bound)
        assert isinstance(page, FoundRuns), page
        assert len(page.runs) <= limit
        assert page.searched_until is None or page.next_cursor is not None
        found += [run.run_id for run in page.runs]
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise AssertionError("the pages do not end")


def expected(db: DbVerbs, which: RunSearch, caller: Caller) -> list[str]:
    """Return the ids that a look at every run finds."""

    def wanted(run: Any) -> bool:
        checks = [
            not which.statuses or run.status in which.statuses,
            run.status not in which.not_statuses,
            not which.run_ids or run.run_id in which.run_ids,
            which.session_id in {None, run.session_id},
            which.agent_name in {None, run.agent_name},
            which.runner_id in {None, run.runner_id},
            which.type in {None, run.type},
            which.owner in {None, run.owner},
            caller.role is Role.ADMIN or run.owner == caller.owner,
            which.parent_session_id in {None, run.parent_session_id},
            which.replay_of in {None, run.replay_of},
            run.attempt >= (which.min_attempt or 0),
            which.ready is None or (run.status == "pending" and run.ready is which.ready),
            which.error_contains is None or which.error_contains.lower() in (run.error or "").lower(),
            which.labels.items() <= (run.labels or {}).items(),
            which.id_start is None or f" {run.run_id} {run.session_id}".find(f" {which.id_start}") >= 0,
            which.created_after is None or run.created_at >= which.created_after,
            which.created_before is None or run.created_at < which.created_before,
            which.ended_after is None or (run.completed_at is not None and run.completed_at >= which.ended_after),
            which.ended_before is None or (run.completed_at is not None and run.completed_at < which.ended_before),
            which.order is Order.CREATED or run.completed_at is not None,
        ]
        return all(checks)

    rows = [run for run in db.rows("SELECT * FROM runs") if wanted(run)]
    ended = which.order is Order.ENDED
    rows.sort(key=lambda run: (run.completed_at if ended else run.created_at, run.run_id), reverse=True)
    return [run.run_id for run in rows]


def maybe(values: st.SearchStrategy[Any], otherwise: Any = None) -> st.SearchStrategy[Any]:
    return st.one_of(st.just(otherwise), st.just(otherwise), values)


minutes = st.integers(0, NUMBER // 2).map(lambda n: BEGIN + timedelta(minutes=n))
hours = st.integers(0, 7).map(lambda n: BEGIN + timedelta(hours=n))
statuses = st.lists(st.sampled_from([*map(str, RunStatus), "unknown"]), max_size=3).map(tuple)
hexes = st.integers(0, NUMBER).map(lambda n: f"{n:032x}")
searches = st.builds(
    RunSearch,
    statuses=maybe(statuses, ()),
    not_statuses=maybe(statuses, ()),
    agent_name=maybe(st.sampled_from(["agent-1", "none"])),
    runner_id=maybe(st.just("lnch_1")),
    labels=maybe(st.just({"team": "a"}), {}),
    run_ids=maybe(st.lists(hexes.map("run_{}".format), min_size=1, max_size=5).map(tuple), ()),
    id_start=maybe(st.one_of(hexes.map("run_{}".format), hexes.map(lambda h: f"ses_{h[:31]}"), st.just("ses_parent"))),
    owner=maybe(st.just("ann")),
    type=maybe(st.just("resume_session")),
    parent_session_id=maybe(st.just("ses_parent")),
    replay_of=maybe(st.sampled_from(["run_replayed", "none"])),
    min_attempt=maybe(st.integers(0, 3)),
    ready=maybe(st.booleans()),
    error_contains=maybe(st.sampled_from(["broken PIPE 5", "%", "_"])),
    created_after=maybe(minutes),
    created_before=maybe(minutes),
    ended_after=maybe(hours),
    ended_before=maybe(hours),
    order=st.sampled_from(Order),
    summary=st.booleans(),
)
bounds = st.sampled_from([Bound(rows=7, unfinished=3, rare=3), Bound(rows=25, rare=10), Bound(), Bound(seconds=0)])


@hypothesis.settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(which=searches, caller=st.sampled_from([ADMIN, ann]), bound=bounds, limit=st.sampled_from([1, 4, 100]))
def test_pages_of_search_hold_what_look_at_every_run_finds(
    filled: DbVerbs, which: RunSearch, caller: Caller, bound: Bound, limit: int
) -> None:
    """Draw filters, callers, bounds and sizes of pages; compare ids and order."""
    assert walked(filled, which, caller, bound, limit) == expected(filled, which, caller)


def test_bounded_search_says_how_far_it_came(filled: DbVerbs) -> None:
    """Look at the newest runs only; the cursor goes on below them."""
    page = filled.do(search_runs, ADMIN, RunSearch(agent_name="none"), limit=10, bound=Bound(rows=10))
    assert isinstance(page, FoundRuns)
    last = filled.one("SELECT created_at FROM runs ORDER BY created_at DESC, run_id DESC OFFSET 9 LIMIT 1")
    assert (page.runs, page.searched_until) == ([], last)
    assert page.next_cursor is not None


@pytest.mark.parametrize("order", Order)
def test_cursor_of_bounded_search_names_no_run_of_another_owner(filled: DbVerbs, order: Order) -> None:
    """Show each own run once all the same, also where the walk stops among runs of one moment."""
    which, cursor, seen = RunSearch(order=order, type="start_session"), None, []
    own = {row.run_id for row in filled.rows("SELECT run_id FROM runs WHERE owner = 'ann'")}
    for _ in range(10 * NUMBER):
        page = filled.do(search_runs, ann, which, limit=100, after=cursor, bound=Bound(rows=7))
        assert isinstance(page, FoundRuns)
        seen += [run.run_id for run in page.runs]
        cursor = page.next_cursor
        if cursor is None:
            break
        key = parse_key(cursor.removeprefix(ENDED_MARK))
        assert key is not None
        assert key[1] in own | {BEHIND_ALL_IDS}
    assert seen == expected(filled, which, ann)


def test_cursor_of_other_order_is_refused(filled: DbVerbs) -> None:
    for order, other in ((Order.CREATED, Order.ENDED), (Order.ENDED, Order.CREATED)):
        page = filled.do(search_runs, ADMIN, RunSearch(order=order), limit=1)
        assert isinstance(page, FoundRuns)
        refused = filled.do(search_runs, ADMIN, RunSearch(order=other), limit=1, after=page.next_cursor)
        assert isinstance(refused, BadCursor)


REFUSED = {
    "fields=summary&unknown=1": "unknown",
    "fields=summary&fields=summary": "fields",
    "fields=summary&agent_name=a&agent_name=b": "agent_name",
    "fields=all": "fields",
    "order=newest": "order",
    "q=%00": "",
    "q=%ff": "",
    "q=%ed%a0%80": "",
    "q=run_0197": "q",
    "min_attempt=99999999999999999999": "min_attempt",
    "min_attempt=-1": "min_attempt",
    "ready=perhaps": "ready",
    "type=other": "type",
    "not_status=unknown": "not_status",
    "created_after=yesterday": "created_after",
    "created_after=2026-01-01T00:00:00": "created_after",
    "created_after=0001-01-01T00:00:00%2B14:00": "created_after",
    "created_after=2026-01-02T00:00:00Z&created_before=2026-01-01T00:00:00Z": "created_before",
    "ended_after=2026-01-02T00:00:00Z&status=running": "status",
    "status=failed&not_status=failed": "not_status",
    "ready=true&status=failed": "ready",
    "ready=true&order=ended": "ready",
    "error_contains=" + "x" * 300: "error_contains",
    "&".join(f"run_id=run_{n}" for n in range(201)): "run_id",
}


def test_search_over_http(settings: Settings, db: DbVerbs) -> None:
    """Answer as described in every form, to admins and users; refuse what has no answer, saying what to change."""
    made = [db.start(caller=ann, agent_name="writer") for _ in range(3)]
    foreign = db.start(caller=Caller(Role.USER, "bob"))
    admin, user = make_key(db, Role.ADMIN), make_key(db, Role.USER, "ann")
    with (
        web_with_auth(settings) as web,
        client_with(web.client.url, admin) as all_,
        client_with(web.client.url, user) as own,
    ):
        whole = own.http.get("/runs").json()
        assert own.http.get("/runs?unknown=1&limit=").json()["runs"] == whole["runs"]
        assert [run["run_id"] for run in whole["runs"]] == [run.run_id for run in reversed(made)]
        found = own.http.get("/runs?order=created&limit=2").json()
        assert found["runs"] == whole["runs"][:2]
        rest = own.http.get(f"/runs?order=created&cursor={found['next_cursor']}").json()
        assert (rest["runs"], "next_cursor" in rest) == (whole["runs"][2:], False)
        summary = own.http.get("/runs?fields=summary").json()
        check_fields("GET /runs", 200, summary)
        shown = [
            {name: value for name, value in run.items() if name not in {"ready", "owner", "prompt"}}
            for run in summary["runs"]
        ]
        kept = summary["runs"][0].keys()
        assert shown == [{name: value for name, value in run.items() if name in kept} for run in whole["runs"]]
        assert {(run["owner"], run["ready"]) for run in summary["runs"]} == {("ann", True)}
        assert own.http.get(f"/runs?q={foreign.run_id}").json()["runs"] == []
        assert (
            own.http.get(f"/runs?run_id={foreign.run_id}&run_id={made[0].run_id}").json()["runs"] == whole["runs"][2:]
        )
        assert len(all_.http.get("/runs?owner=bob").json()["runs"]) == 1
        assert own.http.get("/runs?owner=bob").json()["detail"][0]["loc"] == ["query", "owner"]
        for query, name in REFUSED.items():
            refused = all_.http.get(f"/runs?{query}")
            assert refused.status_code == 422, (query, refused.text)
            assert refused.json()["detail"][0]["loc"] == ["query", *([name] if name else [])], query
        assert all_.http.get("/runs?order=ended&cursor=x").status_code == 400


def test_caller_is_told_its_role_and_the_version(settings: Settings, db: DbVerbs) -> None:
    key = make_key(db, Role.USER, "ann", expires_in=3600)
    with web_with_auth(settings) as web, client_with(web.client.url, key) as client:
        me = client.get("/me").json()
        check_fields("GET /me", 200, me)
        assert (me["role"], me["owner"], me["credential"]) == ("user", "ann", f"key:{key.rpartition('_')[0]}")
        assert me["auth"] is True
        left = datetime.fromisoformat(me["expires_at"]) - datetime.now(UTC)
        assert timedelta(seconds=3000) < left <= timedelta(seconds=3600)
        assert web.client.get("/me").status_code == 401
        assert me["version"] == client.get("/openapi.json").json()["info"]["version"]
