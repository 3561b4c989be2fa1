"""What a session has come to: its status by name, and the newest result it wrote."""

import json
from typing import Any

from sqlalchemy import Connection, text

from models.base import Caller
from models.errors import NotFound, ResultNotFound, SessionNotFinished
from models.sessions import get_session
from models.statuses import SessionStatus

NOT_EXISTENT = "not_existent"

# The text of the frame, not ->>: Postgres refuses to unescape a NUL that some result may hold.
# One statement: retention moves a result from one table to the other.
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


def session_status(conn: Connection, caller: Caller, session_id: str) -> str:
    """Return the session's status, ``not_existent`` for one the caller cannot see."""
    session = get_session(conn, caller, session_id)
    return NOT_EXISTENT if isinstance(session, NotFound) else session.status


def session_result(
    conn: Connection,
    caller: Caller,
    session_id: str,
) -> tuple[str | None, str | None] | NotFound | ResultNotFound | SessionNotFinished:
    """Return the text and the data (JSON text) of the session's newest result, once it is finished or idle."""
    session = get_session(conn, caller, session_id)
    if isinstance(session, NotFound):
        return session
    if session.status not in {SessionStatus.FINISHED, SessionStatus.IDLE}:
        return SessionNotFinished(session_id, session.status)
    row = conn.execute(_NEWEST, {"session_id": session_id}).one_or_none()
    if row is None:
        return ResultNotFound(session_id)
    shown: dict[str, Any] = json.loads(row.frame)["data"]
    result_text, result_data = shown.get("result_text"), shown.get("result_data")
    return result_text, None if result_data is None else json.dumps(result_data, separators=(",", ":"))
