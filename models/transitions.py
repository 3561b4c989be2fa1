"""The one recipe by which a run changes its status: locked in order, decided, moved by a fenced UPDATE, told.

Only the insert (submit) and the claim stand beside it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from psycopg.errors import SerializationFailure
from sqlalchemy import Connection, Row, Select, select, text

from models.base import Caller, any_of, uuid7
from models.child_results import note_ends
from models.feed import EventRow, encode, record_events
from models.reach import Reached, sees
from models.runs import Run, iso
from models.sessions import Session, session_json
from models.settle import Effect, settle_sessions
from models.statuses import TERMINAL, TRANSITIONS, UNFINISHED, RunStatus
from models.tables import runs, sessions

HELD_COLUMNS = tuple(
    runs.c[name]
    for name in [
        "run_id",
        "session_id",
        "session_seq",
        "owner",
        "type",
        "agent_name",
        "project_dir",
        "parent_session_id",
        "execution_mode",
        "status",
        "ready",
        "runner_id",
        "registration",
        "claim_token",
        "claimed_by",
        "claimed_by_registration",
        "former_holders",
        "not_for",
        "attempt",
        "max_attempts",
        "run_timeout_seconds",
        "fruitless_claims",
        "stop_cause",
        "ended_by_us",
        "last_ended_token",
        "last_ended_runner",
        "last_ended_outcome",
        "error",
        "delivered_at",
        "started_at",
        "claimed_at",
        "not_before",
        "match_deadline_at",
        "claim_deadline_at",
        "run_deadline_at",
        "unheld_beats",
    ]
)

HeldRun: TypeAlias = Row[Any]
EVENT_FIELDS = (
    "event_type",
    "session_id",
    "timestamp",
    "tool_name",
    "tool_input",
    "tool_output",
    "error",
    "exit_code",
    "reason",
    "role",
    "content",
    "result_text",
    "result_data",
)


@dataclass(slots=True)
class Move:
    """One run's next status, decided on its locked row, and what it means for the session.

    ``starts`` counts the attempt; ``not_for`` bars a registration from claiming the run again; ``fruitless`` counts a
    delivered claim that came to nothing, and ``unstarts`` takes back an attempt that was counted for it; ``remember``
    keeps what the returning claim reported, so that its repetition is harmless; ``stop_seconds`` is how long a stopping
    run may take.
    """

    run: HeldRun
    to: RunStatus
    effect: Effect
    error: str | None = None
    starts: bool = False
    by_us: bool = False
    stop_cause: str | None = None
    stop_seconds: float | None = None
    not_for: int | None = None
    fruitless: bool = False
    remember: str | None = None
    unstarts: bool = False


@dataclass(slots=True)
class Held:
    """Locked runs and sessions, by id. The runs are all unfinished ones of the sessions, and those asked for.

    ``reached``: what ``models.reach.reach`` found for the runners among the callers.
    """

    runs: dict[str, HeldRun] = field(default_factory=dict)
    sessions: dict[str, Row[Any]] = field(default_factory=dict)
    reached: Reached = ()

    def shows(self, session_id: str, caller: Caller) -> bool:
        """Whether the session is there and the caller may know of it."""
        session = self.sessions.get(session_id)
        return session is not None and sees(caller, session_id, session.owner, self.reached)

    def unfinished_of(self, session_id: str) -> list[HeldRun]:
        """Return the session's unfinished runs in submission order."""
        rows = [run for run in self.runs.values() if run.session_id == session_id and run.status in UNFINISHED]
        return sorted(rows, key=lambda run: int(run.session_seq))


# The unfinished runs of a session come from their partial index: a session of ten thousand turns costs no more.
CONCERNED = text("""runs.run_id = ANY(CAST(:run_ids AS text[]) || ARRAY(
    SELECT u.run_id FROM runs u
    WHERE u.session_id = ANY(CAST(:sessions AS text[]) || ARRAY(
            SELECT a.session_id FROM runs a WHERE a.run_id = ANY(CAST(:run_ids AS text[]))))
        AND u.status IN ('pending', 'claimed', 'running', 'stopping')))
""")
_NEXT_RUN = select(sessions.c.next_run).where(sessions.c.session_id == runs.c.session_id).scalar_subquery()
_HOLD_RUNS: Select[Any] = (
    select(*HELD_COLUMNS, _NEXT_RUN.label("next_run")).where(CONCERNED).order_by(runs.c.run_id).with_for_update(of=runs)
)
READ_SESSIONS = select(sessions).where(sessions.c.session_id == any_of("sessions"))
HOLD_SESSIONS = READ_SESSIONS.order_by(sessions.c.session_id).with_for_update()
_UNFINISHED = text("runs.status IN ('pending', 'claimed', 'running', 'stopping')")
_UNFINISHED_NOW = select(runs.c.run_id).where(runs.c.session_id == any_of("sessions"), _UNFINISHED)
_HOLD_MORE_RUNS: Select[Any] = (
    select(*HELD_COLUMNS).where(runs.c.run_id == any_of("run_ids")).with_for_update(of=runs, skip_locked=True)
)
_HOLD_MORE_SESSIONS = READ_SESSIONS.with_for_update(skip_locked=True)


def hold_runs(
    conn: Connection,
    run_ids: Collection[str] = (),
    session_ids: Collection[str] = (),
    *,
    more_sessions: Collection[str] = (),
) -> Held:
    """Lock the runs, all unfinished runs of their sessions and of ``session_ids``, then the sessions, in id order.

    ``more_sessions`` are locked with the sessions, without their runs. A run that was submitted between the two locks
    is locked too when nobody else holds it; else the transaction has to start over, which is said as a serialisation
    failure.
    """
    rows = conn.execute(_HOLD_RUNS, {"run_ids": list(run_ids), "sessions": list(session_ids)}).all()
    expected = {row.session_id: row.next_run for row in rows}
    held = Held(runs={row.run_id: row for row in rows})
    wanted_sessions = sorted({*expected, *session_ids, *more_sessions})
    locked = conn.execute(HOLD_SESSIONS, {"sessions": wanted_sessions})
    held.sessions = {row.session_id: row for row in locked}
    mattering = expected.keys() | set(session_ids)
    newer = [one for one in mattering & held.sessions.keys() if held.sessions[one].next_run != expected.get(one, 1)]
    if newer:
        unfinished = conn.execute(_UNFINISHED_NOW, {"sessions": newer}).scalars()
        hold_more(conn, held, set(unfinished) - held.runs.keys())
    return held


def hold_more(conn: Connection, held: Held, run_ids: Collection[str], session_ids: Collection[str] = ()) -> None:
    """Lock rows that came meanwhile, out of order and hence only those that nobody else holds.

    If somebody does, the transaction has to start over, which is said as a serialisation failure.
    """
    rows = conn.execute(_HOLD_MORE_RUNS, {"run_ids": list(run_ids)}).all() if run_ids else []
    more = conn.execute(_HOLD_MORE_SESSIONS, {"sessions": list(session_ids)}).all() if session_ids else []
    if len(rows) < len(set(run_ids)) or len(more) < len(set(session_ids)):
        msg = "what came meanwhile is held by another transaction"
        raise SerializationFailure(msg)
    held.runs.update({row.run_id: row for row in rows})
    held.sessions.update({row.session_id: row for row in more})


def hold_sessions(conn: Connection, session_ids: Collection[str]) -> Held:
    """Lock sessions alone, in id order: for changes that concern none of their runs."""
    rows = conn.execute(HOLD_SESSIONS, {"sessions": list(session_ids)})
    return Held(sessions={row.session_id: row for row in rows})


def refresh_sessions(conn: Connection, held: Held, session_ids: Collection[str]) -> None:
    """Read locked sessions again after a round has changed them."""
    rows = conn.execute(READ_SESSIONS, {"sessions": list(session_ids)})
    held.sessions.update({row.session_id: row for row in rows})


_MOVE = text("""
    UPDATE runs r
    SET status = m.status,
        ready = false,
        error = CASE WHEN m.status = 'pending' THEN NULL ELSE coalesce(m.error, r.error) END,
        attempt = r.attempt + CASE WHEN m.starts THEN 1 WHEN m.unstarts THEN -1 ELSE 0 END,
        started_at = CASE WHEN m.starts THEN clock_timestamp() WHEN m.status <> 'pending' THEN r.started_at END,
        completed_at = CASE WHEN m.status IN ('completed', 'failed', 'stopped') THEN clock_timestamp() END,
        run_deadline_at = CASE m.status
            WHEN 'running' THEN now() + make_interval(secs => r.run_timeout_seconds)
            WHEN 'stopping' THEN coalesce(now() + make_interval(secs => m.stop_seconds), r.run_deadline_at) END,
        match_deadline_at = CASE WHEN m.status <> 'pending' THEN r.match_deadline_at END,
        claim_deadline_at = NULL,
        stop_cause = CASE WHEN m.status <> 'pending' THEN coalesce(m.stop_cause, r.stop_cause) END,
        ended_by_us = m.by_us,
        -- in a row: a start that is given back goes on with the count, any other end of a started one begins anew
        fruitless_claims = CASE WHEN m.fruitless THEN r.fruitless_claims + 1
            WHEN r.status IN ('running', 'stopping') AND m.status <> 'stopping' THEN 0 ELSE r.fruitless_claims END,
        unheld_beats = 0,
        not_for = CASE WHEN m.not_for IS NOT NULL THEN array_append(r.not_for, m.not_for) ELSE r.not_for END,
        last_ended_token = CASE WHEN m.remember IS NOT NULL THEN r.claim_token ELSE r.last_ended_token END,
        last_ended_runner = CASE WHEN m.remember IS NOT NULL THEN r.runner_id ELSE r.last_ended_runner END,
        last_ended_outcome = coalesce(m.remember, r.last_ended_outcome),
        -- what follows belongs to a claim: it goes with it on a return to pending
        runner_id = CASE WHEN m.status <> 'pending' THEN r.runner_id END,
        registration = CASE WHEN m.status <> 'pending' THEN r.registration END,
        claim_token = CASE WHEN m.status <> 'pending' THEN r.claim_token END,
        claim_poll_id = CASE WHEN m.status <> 'pending' THEN r.claim_poll_id END,
        claimed_by = CASE WHEN m.status <> 'pending' THEN r.claimed_by END,
        claimed_by_registration = CASE WHEN m.status <> 'pending' THEN r.claimed_by_registration END,
        former_holders = CASE
            WHEN m.status = 'pending' AND r.delivered_at IS NOT NULL AND r.claimed_by_registration = r.registration
                AND NOT coalesce(r.claimed_by = ANY(r.former_holders), r.claimed_by IS NULL)
            THEN array_append(r.former_holders, r.claimed_by) ELSE r.former_holders END,
        claimed_at = CASE WHEN m.status <> 'pending' THEN r.claimed_at END,
        delivered_at = CASE WHEN m.status <> 'pending' THEN r.delivered_at END
    FROM unnest(CAST(:run_ids AS text[]), CAST(:formers AS text[]), CAST(:tokens AS text[]), CAST(:statuses AS text[]),
                CAST(:errors AS text[]), CAST(:starts AS boolean[]), CAST(:by_us AS boolean[]),
                CAST(:stop_causes AS text[]), CAST(:stop_seconds AS double precision[]), CAST(:not_for AS bigint[]),
                CAST(:fruitless AS boolean[]), CAST(:remember AS text[]), CAST(:unstarts AS boolean[]))
         AS m(run_id, former, token, status, error, starts, by_us, stop_cause, stop_seconds, not_for, fruitless,
              remember, unstarts)
    WHERE r.run_id = m.run_id AND r.run_id = ANY(CAST(:run_ids AS text[]))
      AND r.status = m.former AND r.claim_token IS NOT DISTINCT FROM m.token
    RETURNING r.run_id, r.session_id, r.session_seq, r.owner, r.type, r.agent_name, r.project_dir,
        r.parent_session_id, r.execution_mode, r.status, r.ready, r.runner_id, r.registration, r.claim_token,
        r.claimed_by, r.claimed_by_registration, r.former_holders, r.not_for, r.attempt, r.max_attempts,
        r.run_timeout_seconds, r.fruitless_claims, r.stop_cause, r.ended_by_us, r.last_ended_token,
        r.last_ended_runner, r.last_ended_outcome, r.error, r.delivered_at, r.started_at, r.claimed_at, r.not_before,
        r.match_deadline_at, r.claim_deadline_at, r.run_deadline_at, r.unheld_beats, r.completed_at
""")


def move_runs(conn: Connection, moves: Sequence[Move]) -> dict[str, HeldRun]:
    """Move each run (at most one move per run, at most one effect per session), settle the sessions, write history.

    What an ended run leaves for its parent is kept, whatever ended it (``models.child_results``). Returns the moved
    rows by id. A row that was not as the decision saw it is not moved and not returned; under the locks of
    ``hold_runs`` that does not happen.
    """
    if not moves:
        return {}
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
            "not_for": [move.not_for for move in moves],
            "fruitless": [move.fruitless for move in moves],
            "remember": [move.remember for move in moves],
            "unstarts": [move.unstarts for move in moves],
        },
    )
    moved = {row.run_id: row for row in rows}
    done = [move for move in moves if move.run.run_id in moved]
    note_ends(conn, [run for run in moved.values() if run.status in TERMINAL])
    told = settle_sessions(conn, _effects(done))
    tell(conn, done, moved, told)
    return moved


def _effects(moves: Sequence[Move]) -> list[Effect]:
    """Return one effect per session: several runs of one session may end together (a stop), the last one counts."""
    by_session: dict[str, Effect] = {}
    for move in moves:
        former = by_session.get(move.effect.session_id)
        if former is not None:
            move.effect.told = move.effect.told or former.told
        by_session[move.effect.session_id] = move.effect
    return list(by_session.values())


def settle_and_tell(conn: Connection, effects: Sequence[Effect]) -> None:
    """Settle sessions in which no run moves (at most one effect each), and write ``session_updated`` where it shows."""
    told = settle_sessions(conn, effects)
    record_events(conn, [session_updated(session) for session in told])


def tell(
    conn: Connection,
    moves: Sequence[Move],
    moved: dict[str, HeldRun],
    told: Sequence[Session],
) -> None:
    """Write the history of the moves: runs, then sessions, then what a session's own timeline shows."""
    rows = [run_updated(moved[move.run.run_id]) for move in moves]
    rows += [session_updated(session) for session in told]
    for move in moves:
        run = moved[move.run.run_id]
        if move.starts:
            rows.append(session_event(run, "run_start", run.started_at))
        if move.to is RunStatus.COMPLETED:
            rows.append(session_event(run, "run_completed", run.completed_at, exit_code=0, reason="completed"))
        if move.to is RunStatus.FAILED:
            failure = {"run_id": run.run_id, "session_id": run.session_id, "error": run.error}
            rows.append(EventRow("run_failed", run.session_id, encode(failure), run.owner, run.run_id))
    record_events(conn, rows)


def run_updated(run: HeldRun | Run) -> EventRow:
    """Return the feed row that tells where a run stands now."""
    shown = {
        "run_id": run.run_id,
        "session_id": run.session_id,
        "status": run.status,
        "runner_id": run.runner_id,
        "attempt": run.attempt,
        "error": run.error,
    }
    return EventRow("run_updated", run.session_id, encode({"run": shown}), run.owner, run.run_id)


def session_updated(session: Session, kind: str = "session_updated") -> EventRow:
    """Return the feed row that shows a session as it is now."""
    return EventRow(kind, session.session_id, encode({"session": session_json(session)}), session.owner)


def session_event(run: HeldRun, event_type: str, moment: datetime, **values: object) -> EventRow:
    """Return a row of the session's own timeline that we write for a run; ``moment`` is the database's."""
    shown: dict[str, object] = dict.fromkeys(EVENT_FIELDS)
    shown |= {"event_type": event_type, "session_id": run.session_id, "timestamp": iso(moment)}
    shown |= values
    frame = encode({"data": shown})
    return EventRow("event", run.session_id, frame, run.owner, run.run_id, event_type, uuid7())
