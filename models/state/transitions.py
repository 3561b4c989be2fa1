"""Changes of run status: locked in order, decided, moved by one fenced UPDATE, with events.

Only the insert (submit) and the claim have statements of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from models.core.facts import ENDED, REQUEUED, STARTED, note
from models.core.retries import Failure
from models.core.statuses import TERMINAL, TRANSITIONS, Cause, RunStatus
from models.schema.sql import sql
from models.state.child_results import store_child_results
from models.state.events_outbox import EventRow, record_events, run_failed, run_updated, session_event, session_updated
from models.state.locked_rows import LOCKED_RUN_COLUMNS_OF_R, LockedRun, runs_by_id
from models.state.session_status import SessionChange, SessionUpdate, update_session_status


@dataclass(frozen=True, slots=True)
class Move:
    """Next status of one run, decided on its locked row, with the effect on its session.

    ``starts`` counts the attempt; ``excluded_registration`` excludes a registration from claiming the run again;
    ``failed_delivery`` counts a delivered claim that ended before its start, and ``unstarts`` takes back an attempt
    that was counted for it; ``remember`` stores what the returning claim reported, so that its repetition is harmless;
    ``stop_seconds`` is how long a stopping run may take; ``cause`` is why it ends or returns to pending.
    ``delay_seconds``: a return to pending that is not ready before; ``failure``: the reported failure of a run with a
    retry policy, for the feed.
    """

    run: LockedRun
    to: RunStatus
    change: SessionChange
    error: str | None = None
    starts: bool = False
    by_us: bool = False
    stop_cause: str | None = None
    stop_seconds: float | None = None
    excluded_registration: int | None = None
    failed_delivery: bool = False
    remember: str | None = None
    unstarts: bool = False
    cause: Cause = field(default=Cause.REPORTED, compare=False)
    # Cause of a move that no report of the runner asked for, for the feed.
    reason: str | None = None
    delay_seconds: float | None = None
    failure: Failure | None = None


_MOVE = sql(
    """
    UPDATE runs r
    SET status = m.status,
        ready = false,
        error = CASE WHEN m.status = $PENDING THEN NULL ELSE coalesce(m.error, r.error) END,
        attempt = r.attempt + CASE WHEN m.starts THEN 1 WHEN m.unstarts THEN -1 ELSE 0 END,
        started_at = CASE WHEN m.status = $PENDING THEN NULL WHEN m.starts THEN clock_timestamp() ELSE r.started_at END,
        completed_at = CASE WHEN m.status IN $TERMINAL THEN clock_timestamp() END,
        run_deadline_at = CASE m.status
            WHEN $RUNNING THEN now() + make_interval(secs => r.run_timeout_seconds)
            WHEN $STOPPING THEN coalesce(now() + make_interval(secs => m.stop_seconds), r.run_deadline_at) END,
        match_deadline_at = CASE WHEN m.status <> $PENDING THEN r.match_deadline_at END,
        not_before = coalesce(now() + make_interval(secs => m.delay), r.not_before),
        claim_deadline_at = NULL,
        stop_cause = CASE WHEN m.status <> $PENDING THEN coalesce(m.stop_cause, r.stop_cause) END,
        ended_by_us = m.by_us,
        -- count those in a row: a released start continues the count, any other end of a started run resets it
        fruitless_claims = CASE WHEN m.fruitless THEN r.fruitless_claims + 1
            WHEN r.status IN $PAST_CLAIM AND m.status <> $STOPPING THEN 0 ELSE r.fruitless_claims END,
        unheld_beats = 0,
        not_for = CASE WHEN m.not_for IS NOT NULL THEN array_append(r.not_for, m.not_for) ELSE r.not_for END,
        last_ended_token = CASE WHEN m.remember IS NOT NULL THEN r.claim_token ELSE r.last_ended_token END,
        last_ended_runner = CASE WHEN m.remember IS NOT NULL THEN r.runner_id ELSE r.last_ended_runner END,
        last_ended_outcome = coalesce(m.remember, r.last_ended_outcome),
        -- clear what belongs to the claim on a return to pending
        runner_id = CASE WHEN m.status <> $PENDING THEN r.runner_id END,
        registration = CASE WHEN m.status <> $PENDING THEN r.registration END,
        claim_token = CASE WHEN m.status <> $PENDING THEN r.claim_token END,
        claim_poll_id = CASE WHEN m.status <> $PENDING THEN r.claim_poll_id END,
        claimed_by = CASE WHEN m.status <> $PENDING THEN r.claimed_by END,
        claimed_by_registration = CASE WHEN m.status <> $PENDING THEN r.claimed_by_registration END,
        former_holders = CASE
            WHEN m.status = $PENDING AND r.delivered_at IS NOT NULL AND r.claimed_by_registration = r.registration
                AND NOT coalesce(r.claimed_by = ANY(r.former_holders), r.claimed_by IS NULL)
            THEN array_append(r.former_holders, r.claimed_by) ELSE r.former_holders END,
        claimed_at = CASE WHEN m.status <> $PENDING THEN r.claimed_at END,
        delivered_at = CASE WHEN m.status <> $PENDING THEN r.delivered_at END
    FROM unnest(CAST(:run_ids AS text[]), CAST(:formers AS text[]), CAST(:tokens AS text[]), CAST(:statuses AS text[]),
                CAST(:errors AS text[]), CAST(:starts AS boolean[]), CAST(:by_us AS boolean[]),
                CAST(:stop_causes AS text[]), CAST(:stop_seconds AS double precision[]), CAST(:not_for AS bigint[]),
                CAST(:fruitless AS boolean[]), CAST(:remember AS text[]), CAST(:unstarts AS boolean[]),
                CAST(:delays AS double precision[]))
         AS m(run_id, former, token, status, error, starts, by_us, stop_cause, stop_seconds, not_for, fruitless,
              remember, unstarts, delay)
    WHERE r.run_id = m.run_id AND r.run_id = ANY(CAST(:run_ids AS text[]))
      AND r.status = m.former AND r.claim_token IS NOT DISTINCT FROM m.token
    RETURNING $run
""",
    run=LOCKED_RUN_COLUMNS_OF_R,
)


@dataclass(frozen=True, slots=True)
class Moved:
    runs: dict[str, LockedRun] = field(default_factory=dict)
    sessions: dict[str, SessionUpdate] = field(default_factory=dict)


def move_runs(conn: Connection, moves: Sequence[Move]) -> Moved:
    """Move each run (at most one move per run), update the sessions, write the events.

    Results of ended runs are stored for their parents, whatever ended them (``child_results``). A row that differs from
    the one decided on is neither moved nor returned; under the locks of ``lock_runs`` that does not happen. Of several
    runs of one session that end together (a stop) the effect of the last one counts.
    """
    if not moves:
        return Moved()
    for move in moves:
        if move.to is not RunStatus(move.run.status) and move.to not in TRANSITIONS[RunStatus(move.run.status)]:
            msg = f"no transition from {move.run.status} to {move.to}"
            raise ValueError(msg)
    rows = conn.execute(
        _MOVE,
        {
            "run_ids": [move.run.run_id for move in moves],
            "formers": [move.run.status for move in moves],
            "tokens": [move.run.claim_token for move in moves],
            "statuses": [move.to.value for move in moves],
            "errors": [move.error for move in moves],
            "starts": [move.starts for move in moves],
            "by_us": [move.by_us for move in moves],
            "stop_causes": [move.stop_cause for move in moves],
            "stop_seconds": [move.stop_seconds for move in moves],
            "not_for": [move.excluded_registration for move in moves],
            "fruitless": [move.failed_delivery for move in moves],
            "remember": [move.remember for move in moves],
            "unstarts": [move.unstarts for move in moves],
            "delays": [move.delay_seconds for move in moves],
        },
    )
    moved = runs_by_id(rows)
    done = [move for move in moves if move.run.run_id in moved]
    store_child_results(conn, [run for run in moved.values() if run.status in TERMINAL])
    changes = {move.change.session_id: move.change for move in done}
    updates = update_session_status(conn, list(changes.values()))
    _record_moves(conn, done, moved, updates)
    _note_moves(conn, done, moved)
    return Moved(moved, updates)


def update_status_and_record(conn: Connection, changes: Sequence[SessionChange]) -> None:
    """Update sessions in which no run moves (at most one effect each); write ``session_updated`` for changed ones."""
    record_events(conn, sessions_updated(update_session_status(conn, changes)))


def sessions_updated(updates: Mapping[str, SessionUpdate]) -> list[EventRow]:
    return [session_updated(update.session) for update in updates.values() if update.changed]


def _record_moves(
    conn: Connection, moves: Sequence[Move], moved: Mapping[str, LockedRun], updates: Mapping[str, SessionUpdate]
) -> None:
    rows = [run_updated(moved[move.run.run_id], move.reason, move.failure) for move in moves]
    rows += sessions_updated(updates)
    for move in moves:
        run = moved[move.run.run_id]
        if move.starts and run.started_at is not None:
            rows.append(session_event(run, "run_start", run.started_at))
        if move.to is RunStatus.COMPLETED:
            rows.append(session_event(run, "run_completed", run.completed_at, exit_code=0, reason="completed"))
        if move.to is RunStatus.FAILED:
            rows.append(run_failed(run))
    record_events(conn, rows)


def _note_moves(conn: Connection, moves: Sequence[Move], moved: Mapping[str, LockedRun]) -> None:
    for move in moves:
        run = moved[move.run.run_id]
        if move.starts and run.started_at is not None and run.delivered_at is not None:
            note(conn, STARTED, value=(run.started_at - run.delivered_at).total_seconds())
        if move.to is RunStatus.PENDING:
            note(conn, REQUEUED, move.cause, about=_ids(move.run))
        elif run.completed_at is not None:
            seconds = None if run.started_at is None else (run.completed_at - run.started_at).total_seconds()
            quiet = move.cause in {Cause.REPORTED, Cause.STOPPED}
            note(conn, ENDED, run.status, move.cause, value=seconds, about=None if quiet else _ids(move.run))


def _ids(run: LockedRun) -> dict[str, str | None]:
    ids = {"run_id": run.run_id, "session_id": run.session_id, "runner_id": run.runner_id}
    return ids if run.traceparent is None else {**ids, "trace_id": run.traceparent.split("-")[1]}
