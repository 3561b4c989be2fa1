from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from psycopg.errors import SerializationFailure
from sqlalchemy import Connection, Select, select

from models.core.callers import Caller
from models.core.rounds import in_rounds
from models.core.statuses import UNFINISHED
from models.schema.columns import any_of
from models.schema.sql import sql
from models.schema.tables import runs, sessions
from models.state.locked_rows import (
    LOCKED_RUN_COLUMNS,
    LOCKED_SESSION_COLUMNS,
    LockedRun,
    LockedSession,
    runs_by_id,
    sessions_by_id,
)
from models.state.visibility import Visible, can_view

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class LockedRows:
    """Locked runs and sessions, by id. The runs are all unfinished ones of the sessions, and those asked for."""

    runs: Mapping[str, LockedRun] = field(default_factory=dict)
    sessions: Mapping[str, LockedSession] = field(default_factory=dict)

    def updated(self, runs: Mapping[str, LockedRun], sessions: Mapping[str, LockedSession]) -> "LockedRows":
        return LockedRows({**self.runs, **runs}, {**self.sessions, **sessions})

    def shows(self, session_id: str, caller: Caller, visible: Visible) -> bool:
        session = self.sessions.get(session_id)
        return session is not None and can_view(caller, session_id, session.owner, visible)

    def unfinished_of(self, session_id: str) -> list[LockedRun]:
        rows = [run for run in self.runs.values() if run.session_id == session_id and run.status in UNFINISHED]
        return sorted(rows, key=lambda run: run.session_seq)


# Find the unfinished runs of a session by their partial index: a session of ten thousand turns costs no more.
CONCERNED = sql("""runs.run_id = ANY(CAST(:run_ids AS text[]) || ARRAY(
    SELECT u.run_id FROM runs u
    WHERE u.session_id = ANY(CAST(:sessions AS text[]) || ARRAY(
            SELECT a.session_id FROM runs a WHERE a.run_id = ANY(CAST(:run_ids AS text[]))))
        AND u.status IN $UNFINISHED))
""")


_NEXT_RUN = select(sessions.c.next_run).where(sessions.c.session_id == runs.c.session_id).scalar_subquery()


_LOCK_RUNS: Select[Any] = (
    select(*LOCKED_RUN_COLUMNS, _NEXT_RUN.label("next_run"))
    .where(CONCERNED)
    .order_by(runs.c.run_id)
    .with_for_update(of=runs)
)


_READ_SESSIONS = select(*LOCKED_SESSION_COLUMNS).where(sessions.c.session_id == any_of("sessions"))


LOCK_SESSIONS = _READ_SESSIONS.order_by(sessions.c.session_id).with_for_update()


_UNFINISHED = sql("runs.status IN $UNFINISHED")


_UNFINISHED_NOW = select(runs.c.run_id).where(runs.c.session_id == any_of("sessions"), _UNFINISHED)


_LOCK_MORE_RUNS: Select[Any] = (
    select(*LOCKED_RUN_COLUMNS).where(runs.c.run_id == any_of("run_ids")).with_for_update(of=runs, skip_locked=True)
)


_LOCK_MORE_SESSIONS = _READ_SESSIONS.with_for_update(skip_locked=True)


def lock_runs(
    conn: Connection,
    run_ids: Collection[str] = (),
    session_ids: Collection[str] = (),
    *,
    more_sessions: Collection[str] = (),
) -> LockedRows:
    """Lock the runs, all unfinished runs of their sessions and of ``session_ids``, then the sessions, in id order.

    ``more_sessions`` are locked with the sessions, without their runs. A run that was submitted between the two locks
    is locked too when it is free; else the transaction has to start over, which is raised as a serialisation failure.
    """
    rows = conn.execute(_LOCK_RUNS, {"run_ids": list(run_ids), "sessions": list(session_ids)}).all()
    expected = {row.session_id: row.next_run for row in rows}
    wanted_sessions = sorted({*expected, *session_ids, *more_sessions})
    session_rows = conn.execute(LOCK_SESSIONS, {"sessions": wanted_sessions})
    locked = LockedRows(runs_by_id(rows), sessions_by_id(session_rows))
    concerned = expected.keys() | set(session_ids)
    newer = [
        session_id
        for session_id in concerned & locked.sessions.keys()
        if locked.sessions[session_id].next_run != expected.get(session_id, 1)
    ]
    if newer:
        unfinished = conn.execute(_UNFINISHED_NOW, {"sessions": newer}).scalars()
        return try_lock_more(conn, locked, set(unfinished) - locked.runs.keys())
    return locked


def try_lock_more(
    conn: Connection, locked: LockedRows, run_ids: Collection[str], session_ids: Collection[str] = ()
) -> LockedRows:
    """Lock rows that were added meanwhile: out of order, hence only those that are free.

    If one is locked, the transaction has to start over, which is raised as a serialisation failure.
    """
    rows = conn.execute(_LOCK_MORE_RUNS, {"run_ids": list(run_ids)}).all() if run_ids else []
    more = conn.execute(_LOCK_MORE_SESSIONS, {"sessions": list(session_ids)}).all() if session_ids else []
    if len(rows) < len(set(run_ids)) or len(more) < len(set(session_ids)):
        msg = "rows added meanwhile are locked by another transaction"
        raise SerializationFailure(msg)
    return locked.updated(runs_by_id(rows), sessions_by_id(more))


def lock_sessions(conn: Connection, session_ids: Collection[str]) -> dict[str, LockedSession]:
    """Lock sessions alone, in id order: for changes that concern none of their runs."""
    if not session_ids:
        return {}
    return sessions_by_id(conn.execute(LOCK_SESSIONS, {"sessions": sorted(session_ids)}))


def read_sessions_unlocked(conn: Connection, session_ids: Collection[str]) -> dict[str, LockedSession]:
    if not session_ids:
        return {}
    return sessions_by_id(conn.execute(_READ_SESSIONS, {"sessions": sorted(session_ids)}))


def refresh_sessions(conn: Connection, locked: LockedRows, session_ids: Collection[str]) -> LockedRows:
    return locked.updated({}, read_sessions_unlocked(conn, session_ids))


def apply_in_rounds(
    conn: Connection,
    locked: LockedRows,
    run_ids: Mapping[int, str],
    apply: Callable[[LockedRows, list[int]], tuple[Sequence[Result], Mapping[str, LockedRun]]],
) -> dict[int, Result]:
    """Apply the items about these locked runs, by place, one item of a session a round; return the answers by place.

    ``apply`` gets the rows as the rounds before left them and the places of a round. It returns the answers in their
    order, and the runs that have moved.
    """
    places = list(run_ids)
    moved: Mapping[str, LockedRun] = {}
    answers: dict[int, Result] = {}
    for number, one_round in enumerate(in_rounds(locked.runs[run_id].session_id for run_id in run_ids.values())):
        chosen = [places[index] for index in one_round]
        if number:
            sessions_of_round = {locked.runs[run_ids[place]].session_id for place in chosen}
            locked = refresh_sessions(conn, locked.updated(moved, {}), sessions_of_round)
        found, moved = apply(locked, chosen)
        answers.update(zip(chosen, found, strict=True))
    return answers
