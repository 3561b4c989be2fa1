from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import Connection, text

from models.core.statuses import IN_HAND, RunStatus
from models.expiry.duties import duty_due
from models.expiry.steps import Pass, StepResult, each_session_once, token_senders
from models.runners.heartbeat import stale_after
from models.runs.stop import OpenStop, close_stops, open_stops, stop_seconds
from models.runs.superseded import DROP_SUPERSEDED
from models.schema.sql import sql
from models.state.endings import MAX_MISSED_HEARTBEATS, give_up_stop, idle_stopped, release, time_out
from models.state.holds import IS_HELD_OF_R
from models.state.locked_rows import LockedRun
from models.state.locks import LockedRows
from models.state.session_status import IS_EARLIER, IS_OPEN_STOP, SessionChange
from models.state.transitions import move_runs, update_status_and_record
from models.state.try_locks import LockedRunner, try_lock_runners, try_lock_runs

MISSED_SECONDS = 10


# Find delays that ended in the last 60 s; the small index holds them in order of their time.
_DUE = sql(
    """
    SELECT DISTINCT r.session_id FROM runs r
    WHERE r.status = $PENDING AND NOT r.ready
      AND r.not_before BETWEEN CAST(:now AS timestamptz) - interval '60 seconds' AND CAST(:now AS timestamptz)
      -- a stop of the session is open: closing it makes the run ready
      AND NOT EXISTS (SELECT 1 FROM stop_commands c WHERE $is_open_stop)
      -- an earlier run of the session is unfinished: its end makes the run ready
      AND NOT EXISTS (SELECT 1 FROM runs e WHERE $is_earlier)
      AND NOT $is_held
    LIMIT :most
    """,
    is_open_stop=IS_OPEN_STOP,
    is_earlier=IS_EARLIER,
    is_held=IS_HELD_OF_R,
)

# Catch all runs that should have become ready. Reads every waiting run, hence not every second.
_MISSED = sql(
    """
    SELECT DISTINCT r.session_id FROM runs r
    WHERE r.status = $PENDING AND NOT r.ready
      AND (r.not_before IS NULL OR r.not_before <= CAST(:now AS timestamptz))
      AND NOT EXISTS (SELECT 1 FROM stop_commands c WHERE $is_open_stop)
      AND NOT EXISTS (SELECT 1 FROM runs e WHERE $is_earlier)
      AND NOT $is_held
    LIMIT :most
    """,
    is_open_stop=IS_OPEN_STOP,
    is_earlier=IS_EARLIER,
    is_held=IS_HELD_OF_R,
)


def ready_runs(current: Pass) -> StepResult:
    """Make runs ready whose delay has ended, and every 10 s those that were missed."""
    found = current.find(_DUE)
    if len(found) < current.most and duty_due(current.conn, "missed readiness", MISSED_SECONDS):
        found = sorted({*found, *current.find(_MISSED)})
    if not found:
        return StepResult({})
    locked = try_lock_runs(current.conn, session_ids=found)
    before = {run.run_id for run in locked.runs.values() if run.ready}
    update_status_and_record(current.conn, [SessionChange(name) for name in sorted(locked.sessions)])
    after = current.conn.execute(_READY, {"run_ids": sorted(locked.runs.keys() - before)}).scalar_one()
    return StepResult({"ready": int(after)}, len(found) >= current.most)


_READY = text("SELECT count(*) FROM runs WHERE run_id = ANY(CAST(:run_ids AS text[])) AND ready")

# Release at once a claim that too many heartbeats in a row did not name: it never arrived, whatever outages there were.
_SPENT_CLAIMS = sql(
    """
    SELECT r.run_id FROM runs r
    WHERE r.status = $CLAIMED AND r.claim_deadline_at <= CAST(:now AS timestamptz)
      AND (r.unheld_beats >= $max_missed_heartbeats
           OR r.claim_deadline_at <= CASE WHEN r.delivered_at IS NULL THEN CAST(:delivery_due AS timestamptz)
              ELSE CAST(:start_due AS timestamptz) END)
    ORDER BY r.claim_deadline_at LIMIT :most
    """,
    max_missed_heartbeats=str(MAX_MISSED_HEARTBEATS),
)

# Release undelivered claims of a stale runner without waiting for the claim deadline.
_STALE_CLAIMS = sql("""
    SELECT r.run_id FROM runs r JOIN runners n ON n.runner_id = r.runner_id
    JOIN unnest(CAST(:told AS integer[]), CAST(:begun_before AS timestamptz[])) AS w(told, begun_before)
        ON w.told = n.told_interval
    WHERE r.status = $CLAIMED AND r.delivered_at IS NULL AND n.last_seen < w.begun_before
    ORDER BY r.claim_deadline_at LIMIT :most
""")


def release_spent_claims(current: Pass) -> StepResult:
    delivery_due, start_due = current.due(current.limits.claim_timeout), current.due(current.limits.start_timeout)
    spent = current.find(_SPENT_CLAIMS, delivery_due=delivery_due, start_due=start_due)
    silent = current.by_interval(stale_after)
    silent_before = dict(zip(silent["told"], silent["begun_before"], strict=True))
    stale = set(current.find(_STALE_CLAIMS, **silent)) - set(spent)
    found = [*spent, *sorted(stale)]
    locked = try_lock_runs(current.conn, found) if found else LockedRows()
    holders = {run.runner_id for run in locked.runs.values() if run.run_id in stale and run.runner_id is not None}
    runners = try_lock_runners(current.conn, holders)

    def due(run: LockedRun) -> bool:
        if run.status != RunStatus.CLAIMED:
            return False
        if run.run_id in stale:
            runner = runners.get(run.holder[0])
            return run.delivered_at is None and runner is not None and _is_silent(runner, silent_before)
        if run.missed_heartbeats >= MAX_MISSED_HEARTBEATS:
            return True
        latest = delivery_due if run.delivered_at is None else start_due
        return run.claim_deadline_at is not None and run.claim_deadline_at <= latest

    runs = each_session_once(locked, found, due)
    sending = token_senders(current.conn, runs)
    moves = [release(run, sends_tokens=run.registration in sending) for run in runs]
    return StepResult(
        {"claims released": len(move_runs(current.conn, moves).runs)}, max(len(spent), len(stale)) >= current.most
    )


def _is_silent(runner: LockedRunner, before: Mapping[int, datetime]) -> bool:
    return runner.told_interval in before and runner.last_seen < before[runner.told_interval]


# Count from the start, so that a repeat moves nothing twice. Guessed outages move it by the run's own timeout at most.
_MOVE_RUNNING = sql("""
    UPDATE runs r SET run_deadline_at = late.deadline_at
    FROM (
        SELECT w.run_id, w.ends_at + g.length AS deadline_at FROM (
            SELECT d.run_id, d.started_at, d.run_deadline_at, make_interval(secs => d.run_timeout_seconds) AS timeout,
                d.started_at + make_interval(secs => d.run_timeout_seconds) AS ends_at
            FROM runs d
            WHERE d.status = $RUNNING AND d.run_deadline_at <= CAST(:now AS timestamptz)
            ORDER BY d.run_deadline_at LIMIT :most FOR NO KEY UPDATE SKIP LOCKED) w
        CROSS JOIN LATERAL (
            SELECT least(sum(upper(part) - lower(part)) FILTER (WHERE guessed),
                coalesce(sum(upper(part) - lower(part)) FILTER (WHERE NOT guessed), interval '0') + w.timeout) AS length
            FROM (VALUES (true), (false)) AS k(guessed)
            CROSS JOIN LATERAL unnest((SELECT range_agg(tstzrange(started_at, ended_at)) FROM gaps
                                       WHERE ended_at > w.started_at AND (kind <> 'runners' OR k.guessed))
                                      * tstzmultirange(tstzrange(w.started_at, NULL))) AS part) g
        WHERE g.length > interval '0' AND w.ends_at + g.length > w.run_deadline_at) late
    WHERE r.run_id = late.run_id
    RETURNING r.run_id
""")

_TIMED_OUT = sql("""
    SELECT r.run_id FROM runs r
    WHERE r.status = $RUNNING AND r.run_deadline_at <= CAST(:now AS timestamptz)
    ORDER BY r.run_deadline_at LIMIT :most
""")


def stop_timed_out(current: Pass) -> StepResult:
    moved = current.find(_MOVE_RUNNING) if current.clocks.restarted_at else []
    found = current.find(_TIMED_OUT)

    def due(run: LockedRun) -> bool:
        return (
            run.status == RunStatus.RUNNING
            and run.run_deadline_at is not None
            and (run.run_deadline_at <= current.clocks.now)
        )

    locked = try_lock_runs(current.conn, found) if found else LockedRows()
    runs = each_session_once(locked, found, due)
    intervals = _told_intervals(current.conn, {run.holder[0] for run in runs})
    after = {run.run_id: stop_seconds(intervals.get(run.holder[0], 0), current.limits) for run in runs}
    stops = [
        OpenStop(*run.holder, run.session_id, run.run_id, after[run.run_id])
        for run in sorted(runs, key=lambda run: run.session_id)
    ]
    open_stops(current.conn, stops)
    stopping = move_runs(current.conn, [time_out(run, stop_seconds=after[run.run_id]) for run in runs])
    full = max(len(found), len(moved)) >= current.most
    runners_to_notify = frozenset(stop.runner_id for stop in stops)
    return StepResult({"timed out": len(stopping.runs), "run deadlines moved": len(moved)}, full, runners_to_notify)


_INTERVALS = text("SELECT runner_id, told_interval FROM runners WHERE runner_id = ANY(CAST(:runner_ids AS text[]))")


def _told_intervals(conn: Connection, runner_ids: Collection[str]) -> dict[str, int]:
    if not runner_ids:
        return {}
    return {row.runner_id: row.told_interval for row in conn.execute(_INTERVALS, {"runner_ids": sorted(runner_ids)})}


_OVERDUE_STOPS = sql("""
    SELECT r.run_id FROM runs r LEFT JOIN runners n ON n.runner_id = r.runner_id
    JOIN unnest(CAST(:told AS integer[]), CAST(:due AS timestamptz[])) AS w(told, due)
        ON w.told = coalesce(n.told_interval, 0)
    WHERE r.status = $STOPPING AND r.run_deadline_at <= CAST(:now AS timestamptz) AND r.run_deadline_at <= w.due
    ORDER BY r.run_deadline_at LIMIT :most
""")


def give_up_stops(current: Pass) -> StepResult:
    found = current.find(_OVERDUE_STOPS, **current.by_interval(stop_seconds))

    def due(run: LockedRun) -> bool:
        return (
            run.status == RunStatus.STOPPING
            and run.run_deadline_at is not None
            and (run.run_deadline_at <= current.clocks.now)
        )

    locked = try_lock_runs(current.conn, found) if found else LockedRows()
    runs = each_session_once(locked, found, due)
    sending = token_senders(current.conn, runs)
    close_stops(current.conn, {run.session_id for run in runs})
    moves = [give_up_stop(run, sends_tokens=run.registration in sending) for run in runs]
    return StepResult({"stops given up": len(move_runs(current.conn, moves).runs)}, len(found) >= current.most)


# Find overdue stops of idle processes; a run in hand has a deadline of its own.
_OVERDUE_IDLE_STOPS = sql("""
    SELECT c.session_id FROM stop_commands c LEFT JOIN runners n ON n.runner_id = c.runner_id
    JOIN unnest(CAST(:told AS integer[]), CAST(:due AS timestamptz[])) AS w(told, due)
        ON w.told = coalesce(n.told_interval, 0)
    WHERE NOT c.superseded AND c.deadline_at <= CAST(:now AS timestamptz) AND c.deadline_at <= w.due
      AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.session_id = c.session_id
                      AND r.status IN $IN_HAND)
    ORDER BY c.deadline_at LIMIT :most
""")


def give_up_idle_stops(current: Pass) -> StepResult:
    found = current.find(_OVERDUE_IDLE_STOPS, **current.by_interval(stop_seconds))
    locked = try_lock_runs(current.conn, session_ids=found) if found else LockedRows()
    active = {run.session_id for run in locked.runs.values() if run.status in IN_HAND}
    ended = sorted(locked.sessions.keys() - active)
    close_stops(current.conn, ended)
    # End only the stop where no live process is left.
    alive = {name for name in ended if locked.sessions[name].runner_id is not None}
    update_status_and_record(
        current.conn, [idle_stopped(name) if name in alive else SessionChange(name) for name in ended]
    )
    return StepResult({"idle stops given up": len(ended)}, len(found) >= current.most)


def drop_superseded_stops(current: Pass) -> StepResult:
    dropped = current.find(DROP_SUPERSEDED)
    return StepResult({"superseded stops dropped": len(dropped)}, len(dropped) >= current.most)
