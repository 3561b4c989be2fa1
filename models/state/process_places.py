"""Place of sessions that were never bound: the runner that keeps the session's process between its runs."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, Row

from models.core.statuses import SessionStatus
from models.schema.sql import sql
from models.state.locked_rows import LockedSession

# While a run is in hand nothing tells if its process outlives it.
BETWEEN_RUNS: Final = (SessionStatus.IDLE, SessionStatus.PENDING)
# Condition on a runner ``n``: a process that it keeps can be resumed.
KEEPS_PROCESSES: Final = "n.left_at IS NULL AND n.lost_at IS NULL AND n.leave_requested_at IS NULL"

_LIVE = sql(
    """
    SELECT p.session_id, n.hostname, n.executor_profile
    FROM unnest(CAST(:sessions AS text[]), CAST(:runners AS text[]), CAST(:registrations AS bigint[]))
        AS p(session_id, runner_id, registration)
    JOIN runners n ON n.runner_id = p.runner_id AND n.registration = p.registration AND $keeps
    """,
    keeps=KEEPS_PROCESSES,
)

# Host and profile of the runner of the last ended run of a session ``s``, also of a runner that is gone.
LAST_PLACE_OF_S: Final = sql("""
    SELECT n.hostname, n.executor_profile
    FROM (SELECT r.runner_id FROM runs r
          WHERE r.session_id = s.session_id AND r.runner_id IS NOT NULL AND r.status IN $TERMINAL
          ORDER BY r.session_seq DESC LIMIT 1) l
    JOIN runners n ON n.runner_id = l.runner_id
""").text

_LAST = sql(
    """
    SELECT s.session_id, last.hostname, last.executor_profile
    FROM unnest(CAST(:sessions AS text[])) AS s(session_id) CROSS JOIN LATERAL ($last_place) last
    """,
    last_place=LAST_PLACE_OF_S,
)


def with_process_places(conn: Connection, sessions: Mapping[str, LockedSession]) -> dict[str, LockedSession]:
    """Return the sessions; one that was never bound has host and profile of the runner that keeps its process.

    No query unless there is such a session. What was read of locked ones holds: properties of a runner id never change.
    """
    kept = [
        (session.session_id, *session.process)
        for session in sessions.values()
        if session.process is not None and session.status in BETWEEN_RUNS and _was_never_bound(session)
    ]
    if not kept:
        return dict(sessions)
    names, runners, registrations = zip(*kept, strict=True)
    values = {"sessions": list(names), "runners": list(runners), "registrations": list(registrations)}
    return {**sessions, **_placed(sessions, conn.execute(_LIVE, values).all())}


def with_last_places(conn: Connection, sessions: Iterable[LockedSession]) -> dict[str, LockedSession]:
    """Return the sessions by id; one that was never bound has host and profile of the runner of its last ended run.

    To explain why a resume that was submitted while that runner kept the process demands them.
    """
    known = {session.session_id: session for session in sessions}
    unbound = sorted(session_id for session_id, session in known.items() if _was_never_bound(session))
    return {**known, **_placed(known, conn.execute(_LAST, {"sessions": unbound}).all() if unbound else ())}


def _was_never_bound(session: LockedSession) -> bool:
    return session.hostname is None and session.executor_profile is None


def _placed(
    sessions: Mapping[str, LockedSession], rows: Iterable[Row[tuple[str, str, str]]]
) -> dict[str, LockedSession]:
    return {
        row.session_id: replace(sessions[row.session_id], hostname=row.hostname, executor_profile=row.executor_profile)
        for row in rows
    }
