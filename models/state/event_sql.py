"""Build and record the events of runs and sessions within one statement, with the text that ``events_outbox`` builds.

The arguments are SQL expressions, never values.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Final

from models.schema.sql import sql
from models.state.events_outbox import EVENT_FIELDS
from models.state.sessions import Session

_SESSION_MOMENTS: Final = ("created_at", "last_resumed_at")
_SESSION_SHOWN: Final = tuple(field.name for field in fields(Session))

# CTE that records the rows of a CTE ``new_events`` with the columns place, kind, session_id, frame (text), owner,
# run_id and event_type, in the order of place.
RECORDED: Final = """recorded AS (
        INSERT INTO unnumbered_batches (first_id, ids, kinds, session_ids, frames, owners, run_ids, event_types)
        SELECT min(e.id), array_agg(e.id), array_agg(e.kind), array_agg(e.session_id), array_agg(CAST(e.frame AS json)),
            array_agg(e.owner), array_agg(e.run_id), array_agg(e.event_type)
        FROM (
            SELECT nextval('events_id_seq') AS id, n.* FROM (SELECT * FROM new_events ORDER BY place) n
        ) e HAVING count(*) > 0
    )"""
# The same for the rows of a CTE ``told``, in the order of its column step, then of place.
TOLD_RECORDED: Final = sql(
    """new_events AS (
        SELECT row_number() OVER (ORDER BY t.step, t.place) AS place, t.kind, t.session_id, t.frame, t.owner, t.run_id,
            t.event_type
        FROM told t
    ), $recorded""",
    recorded=RECORDED,
).text


def json_text(members: Mapping[str, str]) -> str:
    """Return the expression of an object's JSON text without blanks; a value of SQL NULL is ``null``."""
    shown = [
        f"'\"{name}\":' || coalesce(CAST(to_json({_typed(value)}) AS text), 'null')" for name, value in members.items()
    ]
    return "'{' || " + " || ',' || ".join(shown) + " || '}'"


def _typed(expression: str) -> str:
    """Return the expression with a type: ``to_json`` refuses a bare literal."""
    return f"CAST({expression} AS text)" if expression.startswith("'") else expression


def iso_text(moment: str) -> str:
    return f"to_char({moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"')"


def run_updated_frame(
    *, run_id: str, session_id: str, status: str, runner_id: str, attempt: str, error: str, reason: str | None = None
) -> str:
    shown = {
        "run_id": run_id,
        "session_id": session_id,
        "status": status,
        "runner_id": runner_id,
        "attempt": attempt,
        "error": error,
    } | ({} if reason is None else {"reason": reason})
    return f"'{{\"run\":' || {json_text(shown)} || '}}'"


def run_failed_frame(*, run_id: str, session_id: str, error: str) -> str:
    return json_text({"run_id": run_id, "session_id": session_id, "error": error})


def session_frame(alias: str, **replaced: str) -> str:
    """Return the frame of ``session_updated`` and ``session_created`` for a row of sessions; ``replaced``: expressions
    that take the place of its columns.
    """
    columns = {name: replaced.get(name, f"{alias}.{name}") for name in _SESSION_SHOWN}
    shown = {name: iso_text(value) if name in _SESSION_MOMENTS else value for name, value in columns.items()}
    return f"'{{\"session\":' || {json_text(shown)} || '}}'"


def session_event_frame(*, event_type: str, session_id: str, moment: str, **values: str) -> str:
    """Return the frame of an event on a session's own timeline; ``moment`` is a timestamp expression."""
    shown = dict.fromkeys(EVENT_FIELDS, "CAST(NULL AS text)")
    shown |= {"event_type": event_type, "session_id": session_id, "timestamp": iso_text(moment)}
    return f"'{{\"data\":' || {json_text(shown | values)} || '}}'"
