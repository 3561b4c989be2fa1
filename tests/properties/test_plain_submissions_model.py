"""Hold the plain form of submissions to the verb of all cases: same answers, rows and events on the same state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from models.claims.matching import NO_DEMANDS, Demands
from models.core.callers import ADMIN, Caller, Role
from models.core.ids import new_id
from models.core.statuses import ExecutionMode, RunType
from models.runs.submission import NewRun
from models.runs.submit import submit_runs
from models.runs.submit_plain import submit_plain
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.db_verbs import DbVerbs, start_submission
from tests.support.plain_submissions import ANNA, apply_plain_first, left
from tests.support.registry import add_agent

AWKWARD = 'quote " backslash \\ newline \n separator \u2028 umlaut ü emoji 😀 {NULL,}'
KNOWN, STALE = Demands(tags=("known",)), Demands(tags=("stale",))
OPERATOR = Caller(by="key:crd_000000000001")

TEXTS = st.sampled_from([None, "", "plain", AWKWARD])
SUBMISSIONS = st.builds(
    NewRun,
    run_id=st.builds(lambda: new_id("run_")),
    session_id=st.sampled_from([None] * 12 + ["a", "b", "c", "taken"]),
    new_session_id=st.builds(lambda: new_id("ses_")),
    caller=st.sampled_from([ADMIN, ANNA, Caller(Role.RUNNER, "anna"), Caller(owner="anna"), OPERATOR]),
    type=st.sampled_from([RunType.START] * 12 + [RunType.RESUME]),
    parameters=st.sampled_from(['{"prompt":"p"}', '{"prompt":"a\\u0000b\\ud800"}']),
    agent_name=st.sampled_from([None, "", "plain", AWKWARD] * 4 + ["provided", "with a schema", "left", "registered"]),
    project_dir=TEXTS,
    parent_session_id=st.sampled_from([None] * 15 + ["a", "taken", "nobody"]),
    scope=st.sampled_from([None, "{}", '{"a": 1, "b": "\\u0000"}']),
    execution_mode=st.sampled_from(ExecutionMode),
    additional_demands=st.sampled_from([NO_DEMANDS] * 4 + [KNOWN] * 2 + [STALE, Demands(tags=("new",))]),
    affinity=st.booleans(),
    priority=st.integers(-100, 100),
    not_before=st.sampled_from([None, datetime(2020, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)]),
    delay_seconds=st.sampled_from([None, 0.0, 60.5]),
    max_attempts=st.integers(1, 10),
    run_timeout_seconds=st.sampled_from([None, 1, 100_000]),
    no_match_timeout_seconds=st.integers(1, 100_000),
    labels=st.sampled_from([{}, {"k": "v", AWKWARD: AWKWARD}]),
    idempotency_key=st.sampled_from([None] * 6 + ["k", "l", "stored", "former"]),
    body_hash=st.sampled_from([None, "b", "c"]),
    prompt_only=st.sampled_from([True] * 15 + [False]),
    satisfied_schema=st.sampled_from([None] * 20 + ["hash", "former hash"]),
)
AGENTS = """
    INSERT INTO runner_agents (name, runner_id, command, parameters_schema, schema_hash)
    VALUES ('provided', :runner, 'c', NULL, NULL), ('with a schema', :runner, 'c', '{}', 'hash'),
        ('left', 'gone', 'c', NULL, NULL)
"""

# What differs between two executions in one transaction: ids made by the statements, and ids of new profiles.
_ROWS = {
    "runs": "SELECT r.*, p.hash FROM runs r JOIN demand_profiles p USING (profile_id)",
    "sessions": "SELECT * FROM sessions",
    "run_blueprints": "SELECT run_id, CAST(blueprint AS text) FROM run_blueprints",
    "idempotency_keys": "SELECT * FROM idempotency_keys",
    "demand_profiles": "SELECT hash, hostname, executor_type, tags, made_by, last_used_at FROM demand_profiles",
}
_MADE = {"incarnation", "first_event_id", "profile_id"}
_EVENTS = f"""
    SELECT kind, session_id, CAST(frame AS text) AS frame, owner, run_id, event_type, created_at
    FROM {RECORDED_EVENTS} ORDER BY id
"""

FAST = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Outcome:
    answers: list[Any]
    rows: dict[str, set[str]]
    events: list[tuple[Any, ...]]

    def events_of(self, sessions: Sequence[str]) -> dict[str, list[tuple[Any, ...]]]:
        return {session: [event for event in self.events if event[1] == session] for session in sessions}


def outcome(conn: Connection, submit: Callable[[], Sequence[Any]]) -> Outcome:
    """Return what a submission leaves, and undo it."""
    with conn.begin_nested() as savepoint:
        answers = list(submit())
        rows = {
            table: {
                str({name: value for name, value in row.items() if name not in _MADE})
                for row in conn.execute(text(query)).mappings()
            }
            for table, query in _ROWS.items()
        }
        events = [tuple(row) for row in conn.execute(text(_EVENTS))]
        savepoint.rollback()
    return Outcome(answers, rows, events)


def test_plain_form_and_verb_do_the_same(db: DbVerbs) -> None:
    db.accept(
        start_submission("taken"),
        start_submission(additional_demands=KNOWN),
        start_submission(additional_demands=STALE),
        start_submission(caller=ANNA, idempotency_key="stored", body_hash="b"),
        start_submission(idempotency_key="former", body_hash="b"),
    )
    db.rows("UPDATE demand_profiles SET last_used_at = now() - interval '2 hours' WHERE 'stale' = ANY(tags)")
    db.rows(AGENTS, runner=db.runner().runner_id)
    add_agent(db, "registered", system_prompt="${runtime.run_id}")
    plain_items = 0

    @FAST
    @given(items=st.lists(SUBMISSIONS, max_size=6), most_demands=st.sampled_from([0, 1]))
    def compare(items: list[NewRun], most_demands: int) -> None:
        nonlocal plain_items
        with db.engine.connect() as conn:
            ours = outcome(conn, lambda: apply_plain_first(conn, items, most_demands=most_demands))
            verb = outcome(conn, lambda: submit_runs(conn, items, most_demands=most_demands))
            assert ours.answers == verb.answers
            assert ours.rows == verb.rows
            sessions = [item.own_session for item in items]
            assert ours.events_of(sessions) == verb.events_of(sessions)
            others = left(items, outcome(conn, lambda: submit_plain(conn, items)).answers)
            plain = [item for item in items if item not in others]
            alone = outcome(conn, lambda: submit_plain(conn, plain))
            assert alone == outcome(conn, lambda: submit_runs(conn, plain)), "the order of events, if all are plain"
        plain_items += len(plain)

    compare()
    assert plain_items > 40, "the statement of the plain case is seldom used"
