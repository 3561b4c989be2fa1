"""Explain drawn states and make the real claim: a run without a blocking reason is given out, and no other."""

from collections import Counter
from dataclasses import dataclass
from itertools import count

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from models.claims.matching import Demands, match_sets
from models.core.callers import ADMIN
from models.core.ids import new_id
from models.core.limits import Limits
from models.explanations.explain_run import explain_run
from models.explanations.explain_runner import explain_runner
from models.explanations.reasons import ReasonCode, RunExplanation, RunnerExplanation
from models.runs.submit import submit_runs
from models.state.session_status import SessionChange, update_session_status
from tests.support.db_verbs import DbVerbs, start_submission
from tests.support.dispatch_pass import dispatch_waiting

_numbers = count(1)
HOSTS = ("h0", "h1")


@dataclass(frozen=True)
class DrawnRunner:
    """``polls``: what each of its polls wants; ``in_hand``: runs that it has."""

    host: str
    tags: set[str]
    tagged_only: bool
    capacity: int | None
    in_hand: int
    state: str
    polls: list[int]
    owner: str | None


@dataclass(frozen=True)
class DrawnRun:
    host: str | None
    tags: set[str]
    priority: int
    excludes: list[int]
    state: str
    owner: str | None
    minutes_ready: int


# Codes that the drawn states must reach: those of pending runs and of runners, while there are some of both.
EXPECTED = {
    *(code for code in ReasonCode if code.startswith(("no_", "matching_", "should_"))),
    *(ReasonCode.DELAYED, ReasonCode.BEHIND_IN_SESSION, ReasonCode.STOP_OPEN, ReasonCode.EXCLUDED, ReasonCode.AHEAD),
    *(ReasonCode.GONE, ReasonCode.LEAVING, ReasonCode.LOST, ReasonCode.STALE, ReasonCode.FULL, ReasonCode.SUPERSEDED),
    *(ReasonCode.DRAINING, ReasonCode.NOT_POLLING, ReasonCode.ALL_EXCLUDED, ReasonCode.BEHIND_OTHERS),
} - {ReasonCode.NO_RUNNER, ReasonCode.NO_READY_RUN}
OWNERS = st.sampled_from([None, "ann", "bob"])
RUNNERS = st.lists(
    st.builds(
        DrawnRunner,
        st.sampled_from(HOSTS),
        st.sets(st.sampled_from("ab")),
        st.sampled_from([False, False, False, True]),
        st.sampled_from([None, None, 1, 2]),
        st.integers(0, 2),
        st.sampled_from(
            [""] * 5
            + ["lost", "stale", "leaving", "told", "silent polls", "silent polls", "former polls"]
            + ["former polls", "former polls", "draining", "drained"]
        ),
        st.lists(st.sampled_from([0, 1, 1, 2]), min_size=1, max_size=3),
        OWNERS,
    ),
    min_size=2,
    max_size=5,
)
RUNS = st.lists(
    st.builds(
        DrawnRun,
        st.sampled_from([None, None, "h0"]),
        st.sets(st.sampled_from("ab"), max_size=1),
        st.integers(-1, 1),
        st.one_of([st.just([])] * 3 + [st.lists(st.integers(0, 3), max_size=3)]),
        st.sampled_from(["ready"] * 7 + ["delayed", "behind", "stop", "missed"]),
        OWNERS,
        st.integers(0, 3),
    ),
    min_size=3,
    max_size=9,
)

_RUNNER = text("""
    INSERT INTO runners (runner_id, hostname, project_dir, executor_profile, executor_type, tags, owner, told_interval,
        require_matching_tags, capacity)
    VALUES (:r, :host, '/p', 'e', 'autonomous', CAST(:tags AS text[]), :owner, 60, :tagged_only, :capacity)
    RETURNING registration
""")
_STATES = {
    "lost": "UPDATE runners SET lost_at = now() WHERE runner_id = :r",
    "stale": "UPDATE runners SET last_seen = now() - interval '130 seconds' WHERE runner_id = :r",
    "leaving": "UPDATE runners SET leave_requested_at = now() WHERE runner_id = :r",
    "draining": "UPDATE runners SET draining_since = now() WHERE runner_id = :r",
    "drained": "UPDATE runners SET draining_since = now(), drained_capacity = capacity, capacity = 0 "
    "WHERE runner_id = :r",
    "told": "UPDATE runners SET leave_requested_at = now(), leave_told_at = now() WHERE runner_id = :r",
    "silent polls": "UPDATE waiting_polls SET seen_at = now() - interval '6 seconds' WHERE runner_id = :r",
    "former polls": "UPDATE waiting_polls SET registration = registration - 1000000 WHERE runner_id = :r",
}
_POLL = text("""
    INSERT INTO waiting_polls (poll_id, runner_id, registration, instance, wanted)
    VALUES (:p, :r, :registration, 'web-1', :wanted)
""")
_HELD = text("""
    UPDATE runs SET status = 'running', ready = false, runner_id = :r, registration = :registration, claim_token = 't',
        claimed_at = now() - interval '1 minute', started_at = now(), attempt = 1 WHERE run_id = :run_id
""")
_DRAWN = text("""
    UPDATE runs SET not_for = CAST(:excluded AS bigint[]), ready = :ready,
        not_before = CASE WHEN :delayed THEN now() + interval '1 hour' END,
        match_deadline_at = now() + make_interval(secs => no_match_timeout_seconds) - make_interval(mins => :minutes)
    WHERE run_id = :run_id
""")
_STOP = text("""
    INSERT INTO stop_commands (runner_id, registration, session_id, deadline_at)
    SELECT 'lnch_x', 1, session_id, now() FROM runs WHERE run_id = :run_id
""")
_BEHIND = text("""
    UPDATE runs SET session_id = :session_id, session_seq = :seq, ready = false WHERE run_id = :run_id
""")


def made(conn: Connection, runners: list[DrawnRunner], runs: list[DrawnRun]) -> tuple[list[str], list[str]]:
    """Store the drawn state; return the ids of the runners and the runs."""
    number = next(_numbers)
    held = [start_submission() for runner in runners for _ in range(runner.in_hand)]
    items = [
        start_submission(
            additional_demands=Demands(hostname=run.host, tags=tuple(sorted(run.tags))), priority=run.priority
        )
        for run in runs
    ]
    submit_runs(conn, [*held, *items])
    runner_ids: list[str] = []
    registrations: list[int] = []
    for place, drawn in enumerate(runners):
        runner_id = f"lnch_{number}_{place}"
        values = {
            "r": runner_id,
            "tags": sorted(drawn.tags),
            **{name: getattr(drawn, name) for name in ("host", "owner", "tagged_only", "capacity")},
        }
        registration = conn.execute(_RUNNER, values).scalar_one()
        runner_ids.append(runner_id)
        registrations.append(registration)
        for wanted in drawn.polls:
            poll = {"p": new_id("poll_"), "r": runner_id, "registration": registration, "wanted": wanted}
            conn.execute(_POLL, poll)
        for _ in range(drawn.in_hand):
            conn.execute(_HELD, {"r": runner_id, "registration": registration, "run_id": held.pop().run_id})
        if drawn.state:
            conn.execute(text(_STATES[drawn.state]), {"r": runner_id})
    for place, (item, run) in enumerate(zip(items, runs, strict=True)):
        excluded = [registrations[place] for place in run.excludes if place < len(registrations)]
        conn.execute(
            _DRAWN,
            {
                "excluded": excluded or None,
                "ready": run.state == "ready",
                "delayed": run.state == "delayed",
                "minutes": run.minutes_ready,
                "run_id": item.run_id,
            },
        )
        if run.state == "stop":
            conn.execute(_STOP, {"run_id": item.run_id})
        if run.state == "behind":
            conn.execute(_BEHIND, {"session_id": items[0].new_session_id, "seq": place + 2, "run_id": item.run_id})
    return runner_ids, [item.run_id for item in items]


def explained_runs(conn: Connection, run_ids: list[str], limits: Limits) -> dict[str, RunExplanation]:
    found = {run_id: explain_run(conn, ADMIN, run_id, limits=limits) for run_id in run_ids}
    return {run_id: one for run_id, one in found.items() if isinstance(one, RunExplanation)}


def explained_runners(conn: Connection, runner_ids: list[str], limits: Limits) -> dict[str, RunnerExplanation]:
    found = {runner_id: explain_runner(conn, ADMIN, runner_id, limits=limits) for runner_id in runner_ids}
    return {runner_id: one for runner_id, one in found.items() if isinstance(one, RunnerExplanation)}


def blocked(explained: RunExplanation | RunnerExplanation) -> bool:
    return any(reason.blocking for reason in explained.reasons)


def readied(conn: Connection, run_id: str) -> bool:
    """Return whether the session's own rule makes the run ready now; undone."""
    start = conn.begin_nested()
    session_id = conn.execute(text("SELECT session_id FROM runs WHERE run_id = :r"), {"r": run_id}).scalar_one()
    update_session_status(conn, [SessionChange(session_id)])
    ready = conn.execute(text("SELECT ready FROM runs WHERE run_id = :r"), {"r": run_id}).scalar_one()
    start.rollback()
    return bool(ready)


def agree(conn: Connection, runner_ids: list[str], run_ids: list[str], limits: Limits) -> Counter[str]:
    """Require explanations and the claim to agree; return the codes that were given."""
    runs = explained_runs(conn, run_ids, limits)
    runners = explained_runners(conn, runner_ids, limits)
    for run_id, explained in runs.items():
        codes = {reason.code for reason in explained.reasons if reason.blocking}
        if not codes.isdisjoint({ReasonCode.DELAYED, ReasonCode.BEHIND_IN_SESSION, ReasonCode.STOP_OPEN}):
            assert not readied(conn, run_id), codes
        elif ReasonCode.SHOULD_BE_READY in codes:
            assert readied(conn, run_id)
    match_sets(conn).refresh(conn)
    given = [one for found in dispatch_waiting(conn, limits=limits).by_instance.values() for one in found]
    assert {one.run_id for one in given} == {run_id for run_id, found in runs.items() if not blocked(found)}
    rows = conn.execute(text("SELECT runner_id FROM runs WHERE status = 'claimed'")).scalars()
    assert set(rows) == {runner_id for runner_id, found in runners.items() if not blocked(found)}
    both: list[RunExplanation | RunnerExplanation] = [*runs.values(), *runners.values()]
    return Counter(reason.code for found in both for reason in found.reasons)


def explain_and_claim(db: DbVerbs, *, ageing: float = 0, examples: int = 50) -> Counter[str]:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(runners=RUNNERS, runs=RUNS)
    def compare(runners: list[DrawnRunner], runs: list[DrawnRun]) -> None:
        with db.engine.connect() as conn:
            runner_ids, run_ids = made(conn, runners, runs)
            seen.update(agree(conn, runner_ids, run_ids, Limits(priority_ageing=ageing)))
            conn.rollback()

    compare()
    return seen


def explained_as_claimed(db: DbVerbs) -> None:
    explain_and_claim(db)


def test_explanation_has_no_blocking_reason_if_and_only_if_claim_gives_run_out(db: DbVerbs) -> None:
    seen = explain_and_claim(db) + explain_and_claim(db, ageing=60, examples=15)
    assert EXPECTED - seen.keys() == set()
    assert min(seen[code] for code in (ReasonCode.SHOULD_BE_CLAIMED, ReasonCode.SHOULD_CLAIM, ReasonCode.AHEAD)) > 20
