import json
from typing import Any, TypeAlias

from sqlalchemy import Connection, text

from models.core.callers import Caller
from models.core.errors import NotFound, ResultNotFound, RunNotCompleted, SessionNotFinished
from models.core.statuses import RunStatus, SessionStatus
from models.state.runs import get_run
from models.state.sessions import get_session

NOT_EXISTENT = "not_existent"

# Pair of the text and the data (JSON text).
Result: TypeAlias = tuple[str | None, str | None]

# Results are written by clients, so they stand in events at once, and never in a batch.
# Read the text of the frame, not ->>: Postgres refuses to unescape a NUL that some result may hold. In one statement:
# retention moves a result from one table to the other.
_NEWEST = text("""
    SELECT CAST(r.frame AS text) AS frame
    FROM sessions s
    CROSS JOIN LATERAL (
        (SELECT e.id, e.frame FROM events e
         WHERE e.session_id = s.session_id AND e.event_type = 'result' AND e.kind = 'event' AND e.id >= s.first_event_id
         ORDER BY e.id DESC LIMIT 1)
        UNION ALL
        SELECT k.event_id, k.frame FROM kept_results k
        WHERE k.session_id = s.session_id AND k.event_id >= s.first_event_id
    ) r
    WHERE s.session_id = :session_id
    ORDER BY r.id DESC LIMIT 1
""")


# Read the run from the frame: retention keeps the newest result of a session only, with its run in its frame.
_NEWEST_OF_RUN = text("""
    SELECT CAST(r.frame AS text) AS frame, r.is_kept
    FROM sessions s
    CROSS JOIN LATERAL (
        (SELECT e.id, e.frame, false AS is_kept FROM events e
         WHERE e.session_id = s.session_id AND e.event_type = 'result' AND e.kind = 'event' AND e.id >= s.first_event_id
           AND e.run_id = :run_id
         ORDER BY e.id DESC LIMIT 1)
        UNION ALL
        SELECT k.event_id, k.frame, true FROM kept_results k
        WHERE k.session_id = s.session_id AND k.event_id >= s.first_event_id
    ) r
    WHERE s.session_id = :session_id
    ORDER BY r.id DESC
""")


def session_status(conn: Connection, caller: Caller, session_id: str) -> str:
    """Return the session's status, ``not_existent`` for one the caller cannot see."""
    session = get_session(conn, caller, session_id)
    return NOT_EXISTENT if isinstance(session, NotFound) else session.status


def session_result(
    conn: Connection, caller: Caller, session_id: str
) -> Result | NotFound | ResultNotFound | SessionNotFinished:
    session = get_session(conn, caller, session_id)
    if isinstance(session, NotFound):
        return session
    if session.status not in {SessionStatus.FINISHED, SessionStatus.IDLE}:
        return SessionNotFinished(session_id, session.status)
    row = conn.execute(_NEWEST, {"session_id": session_id}).one_or_none()
    return ResultNotFound(session_id) if row is None else _result(json.loads(row.frame))


def run_result(conn: Connection, caller: Caller, run_id: str) -> Result | NotFound | ResultNotFound | RunNotCompleted:
    """Return the newest result of a completed run; after retention only if it is the last result of its session."""
    run = get_run(conn, caller, run_id)
    if isinstance(run, NotFound):
        return run
    if run.status != RunStatus.COMPLETED:
        return RunNotCompleted(run_id, run.status)
    for row in conn.execute(_NEWEST_OF_RUN, {"session_id": run.session_id, "run_id": run_id}):
        frame = json.loads(row.frame)
        if not row.is_kept or frame.get("run_id") == run_id:
            return _result(frame)
    return ResultNotFound(run_id)


def _result(frame: dict[str, Any]) -> Result:
    shown: dict[str, Any] = frame["data"]
    result_text, result_data = shown.get("result_text"), shown.get("result_data")
    return result_text, None if result_data is None else json.dumps(result_data, separators=(",", ":"))
