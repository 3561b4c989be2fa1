"""Check what holds for every database after every committed step, and compare it with a model."""

import itertools
from dataclasses import dataclass, field
from typing import Any

from models.core.statuses import IN_HAND, TERMINAL, TRANSITIONS, RunStatus
from testkit.recorded_events import RECORDED_EVENTS
from tests.properties.lifecycle_model import Model
from tests.support.db_verbs import DbVerbs

_RUNS = """
    SELECT r.run_id, r.session_id, r.session_seq, r.status, r.ready, r.runner_id, r.registration, r.claim_token,
        r.attempt, r.max_attempts, r.delivered_at IS NOT NULL AS delivered, r.completed_at, r.error, r.not_for,
        r.match_deadline_at, r.claim_deadline_at,
        r.not_before IS NULL OR r.not_before <= now() AS due,
        EXISTS (SELECT 1 FROM stop_commands c WHERE c.session_id = r.session_id AND NOT c.superseded) AS stop_open,
        NOT EXISTS (SELECT 1 FROM runs e WHERE e.session_id = r.session_id AND e.session_seq < r.session_seq
                    AND e.status IN ('pending', 'claimed', 'running', 'stopping')) AS first
    FROM runs r ORDER BY r.run_id
"""
_RUN_EVENTS = f"""
    SELECT e.run_id, e.frame->'run'->>'status' AS status, e.frame->'run'->>'runner_id' AS runner_id,
        (e.frame->'run'->>'attempt')::int AS attempt, e.frame->'run'->>'error' AS error
    FROM (SELECT * FROM {RECORDED_EVENTS}) e JOIN runs r USING (run_id) WHERE e.kind = 'run_updated' ORDER BY e.id
"""
_FAILURES = f"""
    SELECT e.run_id, e.frame->>'error' AS error FROM (SELECT * FROM {RECORDED_EVENTS}) e JOIN runs r USING (run_id)
    WHERE e.kind = 'run_failed' ORDER BY e.run_id
"""
_SESSION_EVENTS = f"""
    SELECT DISTINCT ON (e.session_id) e.session_id, e.frame->'session'->>'status' AS status
    FROM (SELECT * FROM {RECORDED_EVENTS}) e JOIN sessions s ON s.session_id = e.session_id AND e.id >= s.first_event_id
    WHERE e.kind IN ('session_created', 'session_updated') ORDER BY e.session_id, e.id DESC
"""
_ENDED_BY_MISTAKE = """
    SELECT c.session_id FROM stop_commands c JOIN sessions s USING (session_id)
    WHERE c.superseded AND c.registration = s.registration AND c.runner_id = s.runner_id
"""


@dataclass
class Memory:
    """Facts seen before: ends that must stay, and the claim of every token."""

    ended: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    claims: dict[str, tuple[str, str]] = field(default_factory=dict)
    current: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)


def check(db: DbVerbs, model: Model, memory: Memory) -> None:
    """Check every invariant on one snapshot."""
    runs = db.rows(_RUNS)
    _ends_stay(runs, memory)
    _claims_never_overlap(runs, memory)
    for run in runs:
        in_line = run.status == "pending" and run.first and run.due and not run.stop_open
        assert run.ready == in_line, f"ready: {run}"
        assert (run.match_deadline_at is not None) == run.ready or run.status != "pending", f"match deadline: {run}"
        assert (run.claim_deadline_at is not None) == (run.status == "claimed"), f"claim deadline: {run}"
        assert run.attempt <= run.max_attempts, f"attempts: {run}"
    _history_tells_it_all(db, runs)
    _is_as_the_model_says(db, runs, model)


def _ends_stay(runs: Any, memory: Memory) -> None:
    there = {run.run_id for run in runs}
    memory.ended = {run_id: end for run_id, end in memory.ended.items() if run_id in there}
    for run in runs:
        if run.status in TERMINAL:
            end = (run.status, run.completed_at, run.error, run.attempt, run.claim_token)
            assert memory.ended.setdefault(run.run_id, end) == end, f"an end changed: {run}"
        else:
            assert run.run_id not in memory.ended, f"an end was undone: {run}"


def _claims_never_overlap(runs: Any, memory: Memory) -> None:
    """Check that a token is one claim of one run by one runner and never returns after its end."""
    in_hand = [run for run in runs if run.status in IN_HAND]
    assert len({run.session_id for run in in_hand}) == len(in_hand), "two runs of a session in hand"
    now = {run.run_id: run.claim_token for run in in_hand}
    assert len(set(now.values())) == len(now), "a token twice"
    memory.gone |= {token for run_id, token in memory.current.items() if now.get(run_id) != token}
    memory.current = now
    for run in in_hand:
        assert run.claim_token not in memory.gone, f"a former claim is back: {run}"
        claim = (run.run_id, run.runner_id)
        assert memory.claims.setdefault(run.claim_token, claim) == claim, f"a token changed hands: {run}"


def _history_tells_it_all(db: DbVerbs, runs: Any) -> None:
    """Check that each change of status is told, in order, and that the last line is the current one."""
    told: dict[str, list[Any]] = {}
    for event in db.rows(_RUN_EVENTS.replace("::", "\\:\\:")):
        told.setdefault(event.run_id, []).append(event)
    for run in runs:
        lines = told[run.run_id]
        shown = (run.status, run.runner_id, run.attempt, run.error)
        assert (lines[-1].status, lines[-1].runner_id, lines[-1].attempt, lines[-1].error) == shown, f"untold: {run}"
        assert lines[0].status == "pending"
        for former, latter in itertools.pairwise(lines):
            if former.status != latter.status:
                assert RunStatus(latter.status) in TRANSITIONS[RunStatus(former.status)], (former, latter)
    failed = [(run.run_id, run.error) for run in runs if run.status == "failed"]
    assert [tuple(row) for row in db.rows(_FAILURES)] == failed, "failures are told once each, and nothing else as one"
    statuses = {row.session_id: row.status for row in db.rows("SELECT session_id, status FROM sessions")}
    assert {row.session_id: row.status for row in db.rows(_SESSION_EVENTS)} == statuses


def _is_as_the_model_says(db: DbVerbs, runs: Any, model: Model) -> None:
    assert {run.run_id for run in runs} == model.runs.keys()
    for row in runs:
        run = model.runs[row.run_id]
        holder = run.runner.runner_id if run.runner is not None else None
        expected = (run.status, run.ready, holder, run.token, run.attempt, run.delivered, run.excluded)
        found = (row.status, row.ready, row.runner_id, row.claim_token, row.attempt, row.delivered)
        assert (*found, set(row.not_for or ())) == expected, f"{row.run_id}: {found}, not {expected}"
    assert db.rows(_ENDED_BY_MISTAKE) == [], "the live process of a session is told to end as a former one"
    sessions = db.rows(
        """SELECT s.session_id, s.status, s.runner_id, c.runner_id AS told, c.run_id
           FROM sessions s LEFT JOIN stop_commands c ON c.session_id = s.session_id AND NOT c.superseded""",
    )
    assert {row.session_id for row in sessions} == model.sessions.keys()
    for row in sessions:
        session = model.sessions[row.session_id]
        stopper, stopped = session.stop or (None, None)
        live = session.live.runner_id if session.live is not None else None
        expected_one = (
            session.status,
            live,
            stopper.runner_id if stopper is not None else None,
            stopped.run_id if stopped is not None else None,
        )
        assert (row.status, row.runner_id, row.told, row.run_id) == expected_one, row
