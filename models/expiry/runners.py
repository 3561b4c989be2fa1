from collections.abc import Callable, Sequence

from sqlalchemy import text

from models.core.statuses import RunStatus
from models.expiry.steps import Pass, StepResult, token_senders
from models.runners.agents import drop_agents
from models.runners.departure import LEFT, NOT_HELD, ORPHANED, REPLACED, Ended, end_work, registrations
from models.runners.heartbeat import lost_after
from models.runs.stop import close_stops
from models.schema.sql import sql
from models.state.endings import MAX_MISSED_HEARTBEATS, lose, lost_reason
from models.state.locked_rows import LockedRun
from models.state.transitions import move_runs
from models.state.try_locks import LockedRunner, try_lock_runners, try_lock_runs

# Check the silence on the row once it is locked; a row that is locked, as by a heartbeat, is skipped.
_LOST = text("""
    UPDATE runners n SET lost_at = clock_timestamp()
    FROM (SELECT r.runner_id FROM runners r
          JOIN unnest(CAST(:told AS integer[]), CAST(:begun_before AS timestamptz[])) AS w(told, begun_before)
              ON w.told = r.told_interval
          WHERE r.lost_at IS NULL AND r.left_at IS NULL AND r.last_seen < w.begun_before
          ORDER BY r.runner_id LIMIT :most FOR NO KEY UPDATE OF r SKIP LOCKED) silent
    WHERE n.runner_id = silent.runner_id
    RETURNING n.runner_id
""")

# Wait for the lost interval after a runner was told to leave, since its reports are accepted; not for a lost one.
_GONE = text("""
    UPDATE runners n SET left_at = clock_timestamp()
    FROM (SELECT r.runner_id FROM runners r
          JOIN unnest(CAST(:told AS integer[]), CAST(:begun_before AS timestamptz[])) AS w(told, begun_before)
              ON w.told = r.told_interval
          WHERE r.left_at IS NULL AND r.leave_requested_at IS NOT NULL
            AND (r.lost_at IS NOT NULL OR r.leave_told_at < w.begun_before)
          ORDER BY r.runner_id LIMIT :most FOR NO KEY UPDATE OF r SKIP LOCKED) told
    WHERE n.runner_id = told.runner_id
    RETURNING n.runner_id
""")


def lose_silent(current: Pass) -> StepResult:
    """Mark silent runners lost, and end the registrations of those that had their time after being told to leave.

    A lost runner keeps its agents until it leaves or is removed.
    """
    silent = current.by_interval(lost_after)
    lost, gone = current.find(_LOST, **silent), current.find(_GONE, **silent)
    drop_agents(current.conn, gone)
    return StepResult({"runners lost": len(lost), "runners gone": len(gone)}, max(len(lost), len(gone)) >= current.most)


# Find runs in hand whose runner is lost, gone, unknown or replaced by another process.
_RUNS_WITHOUT_HOLDER = sql("""
    SELECT r.run_id FROM runs r LEFT JOIN runners n ON n.runner_id = r.runner_id
    WHERE r.status IN $IN_HAND
      AND (n.runner_id IS NULL OR n.lost_at IS NOT NULL OR n.left_at IS NOT NULL OR n.registration <> r.registration)
    LIMIT :most
""")

_SESSIONS_WITHOUT_HOLDER = sql("""
    WITH live AS MATERIALIZED (
        SELECT session_id, runner_id, registration FROM sessions WHERE runner_id IS NOT NULL
    )
    SELECT s.session_id FROM live s LEFT JOIN runners n ON n.runner_id = s.runner_id
    WHERE (n.runner_id IS NULL OR n.lost_at IS NOT NULL OR n.left_at IS NOT NULL OR n.registration <> s.registration)
      -- with a run in hand the end of that run ends it
      AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.session_id = s.session_id
                      AND r.status IN $IN_HAND)
    LIMIT :most
""")


def take_from_lost(current: Pass) -> StepResult:
    run_ids, session_ids = current.find(_RUNS_WITHOUT_HOLDER), current.find(_SESSIONS_WITHOUT_HOLDER)
    if not run_ids and not session_ids:
        return StepResult({})
    locked = try_lock_runs(current.conn, run_ids, session_ids)
    numbers = registrations(locked)
    known = set(current.conn.execute(_KNOWN, {"runner_ids": sorted(numbers)}).scalars())
    rows = try_lock_runners(current.conn, known)
    ended: dict[int, Ended] = {}
    for runner_id, holders in numbers.items():
        if runner_id not in known or runner_id in rows:
            for number in holders:
                end = _end_of(current, number, rows.get(runner_id))
                if end is not None:
                    ended[number] = end
    taken = end_work(current.conn, locked, ended)
    return StepResult({"runs taken": taken}, max(len(run_ids), len(session_ids)) >= current.most)


_KNOWN = text("SELECT runner_id FROM runners WHERE runner_id = ANY(CAST(:runner_ids AS text[]))")


def _end_of(current: Pass, number: int, runner: LockedRunner | None) -> Ended | None:
    if runner is None:
        return Ended(LEFT, sends_tokens=False)
    if runner.registration != number:
        return Ended(REPLACED, sends_tokens=False)
    if runner.left_at is not None:
        return Ended(LEFT, sends_tokens=runner.sends_tokens)
    if runner.lost_at is not None:
        silence = current.clocks.now - runner.last_seen
        return Ended(lost_reason(silence.total_seconds()), sends_tokens=runner.sends_tokens)
    return None


# A literal, not a parameter: the planner must prove the condition of the index ix_runs_unheld.
_UNHELD = sql(
    """
    SELECT r.run_id FROM runs r
    WHERE r.status = $RUNNING AND r.unheld_beats >= $max_missed_heartbeats
    ORDER BY r.run_id LIMIT :most
    """,
    max_missed_heartbeats=str(MAX_MISSED_HEARTBEATS),
)


def take_unheld(current: Pass) -> StepResult:
    found = current.find(_UNHELD)
    lost = _take(current, found, NOT_HELD, lambda run: run.missed_heartbeats >= MAX_MISSED_HEARTBEATS) if found else 0
    return StepResult({"runs not held": lost}, len(found) >= current.most)


# Find running runs whose end report may have been lost in an outage longer than reports are held: the runner never
# sends ``holding``, and the session gave no sign since. Search for an hour: a run that is still there then has given a
# sign. Of several such outages the last one that is long enough ago covers all before it.
_ORPHANED = sql("""
    SELECT r.run_id
    FROM (SELECT max(ended_at) AS ended_at FROM gaps
          WHERE ended_at - started_at > make_interval(secs => :report_hold)
            AND ended_at < CAST(:ended_before AS timestamptz)
            AND ended_at > CAST(:ended_before AS timestamptz) - interval '1 hour') g
    JOIN runs r ON r.status = $RUNNING AND r.started_at < g.ended_at
    JOIN sessions s ON s.session_id = r.session_id AND coalesce(s.last_sign_at, '-infinity') <= g.ended_at
    JOIN runners n ON n.runner_id = r.runner_id AND n.registration = r.registration AND NOT n.sends_holding
    LIMIT :most
""")


def take_orphaned(current: Pass) -> StepResult:
    """Take runs without a sign since an outage in which the report of their end may have been lost."""
    limits = current.limits
    if limits.orphan_after <= 0 or current.clocks.restarted_at is None:
        return StepResult({})
    ended_before = current.begun_before(limits.orphan_after)
    found = current.find(_ORPHANED, report_hold=limits.report_hold, ended_before=ended_before)
    lost = _take(current, found, ORPHANED, lambda _: True) if found else 0
    return StepResult({"runs orphaned": lost}, len(found) >= current.most)


def _take(current: Pass, run_ids: Sequence[str], reason: str, due: Callable[[LockedRun], bool]) -> int:
    locked = try_lock_runs(current.conn, run_ids)
    runs = [
        locked.runs[run_id]
        for run_id in run_ids
        if run_id in locked.runs and locked.runs[run_id].status == RunStatus.RUNNING and due(locked.runs[run_id])
    ]
    sending = token_senders(current.conn, runs)
    close_stops(current.conn, {run.session_id for run in runs})
    moves = [lose(run, reason=reason, sends_tokens=run.registration in sending) for run in runs]
    return len(move_runs(current.conn, moves).runs)


# Delete rows that no process renews: a poll's own process does so every 2 s, and dispatch ignores rows older than 5 s.
_SILENT_POLLS = text("""
    DELETE FROM waiting_polls WHERE poll_id IN (
        SELECT poll_id FROM waiting_polls WHERE seen_at < CAST(:now AS timestamptz) - interval '30 seconds'
        ORDER BY poll_id LIMIT :most FOR UPDATE SKIP LOCKED)
    RETURNING poll_id
""")


def drop_silent_polls(current: Pass) -> StepResult:
    dropped = current.find(_SILENT_POLLS)
    return StepResult({"polls dropped": len(dropped)}, len(dropped) >= current.most)
