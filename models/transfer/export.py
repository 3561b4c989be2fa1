"""Read sessions, runs and events as the former coordinator stored them. Needs a transaction with one snapshot."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Row, text

from models.core.storable_text import storable
from models.schema.sql import sql
from models.state.pending_events import pending_events_of
from models.state.runs import iso
from models.transfer.old_file import EVENT, RUN, SESSION

# Sessions that are read together; events come through a cursor of the server.
_PAGE: Final = 200
_ROWS: Final = 1_000
_JSON: Final = frozenset({"tool_input", "tool_output", "content", "result_data"})
_LARGEST_INT: Final = 2**63 - 1

# It locks nothing.
_NO_TIME_LIMIT = text("""
    SELECT set_config('statement_timeout', '0', true), set_config('idle_in_transaction_session_timeout', '0', true)
""")

_SESSIONS = text("""
    SELECT session_id, status, created_at, project_dir, agent_name, last_resumed_at, parent_session_id,
        executor_session_id, executor_profile, hostname
    FROM sessions WHERE session_id > :after ORDER BY session_id LIMIT :most
""")

_RUNS = text("""
    SELECT session_id, run_id, type, agent_name, CAST(parameters AS text) AS parameters, project_dir, parent_session_id,
        execution_mode, CAST(demands AS text) AS demands, status, runner_id, error, created_at, claimed_at, started_at,
        completed_at, CAST(scope AS text) AS scope,
        (SELECT CAST(b.blueprint AS text) FROM run_blueprints b WHERE b.run_id = runs.run_id)
            AS resolved_agent_blueprint
    FROM runs WHERE session_id = ANY(CAST(:sessions AS text[])) ORDER BY session_id, session_seq
""")

# A result that retention has kept comes first: it is older than all events that are left.
_EVENTS = sql(
    """
    SELECT e.session_id, CAST(e.frame AS text) AS frame FROM (
        SELECT s.session_id, coalesce(n.feed_pos, $endless) AS place, n.id, n.frame
        FROM sessions s JOIN events n ON n.session_id = s.session_id AND n.id >= s.first_event_id
        WHERE s.session_id = ANY(CAST(:sessions AS text[])) AND n.kind = 'event'
        UNION ALL
        SELECT s.session_id, $endless, b.id, b.frame
        FROM sessions s CROSS JOIN LATERAL ($pending) b
        WHERE s.session_id = ANY(CAST(:sessions AS text[])) AND b.id >= s.first_event_id AND b.kind = 'event'
        UNION ALL
        SELECT s.session_id, 0, k.event_id, k.frame
        FROM sessions s JOIN kept_results k ON k.session_id = s.session_id AND k.event_id >= s.first_event_id
        WHERE s.session_id = ANY(CAST(:sessions AS text[]))
    ) e
    ORDER BY e.session_id, e.place, e.id
    """,
    endless=str(_LARGEST_INT),
    pending=pending_events_of("s.session_id"),
)


@dataclass(frozen=True, slots=True)
class Exported:
    """Rows of some sessions, in the columns of the file; runs and events begin with their session's id."""

    sessions: list[tuple[Any, ...]]
    runs: list[tuple[Any, ...]]
    events: Iterator[tuple[Any, ...]]


def export_history(conn: Connection) -> Iterator[Exported]:
    """Return all sessions page by page; use up a page's events before the next page."""
    conn.execute(_NO_TIME_LIMIT)
    after = ""
    while rows := conn.execute(_SESSIONS, {"after": after, "most": _PAGE}).all():
        session_ids = [row.session_id for row in rows]
        yield Exported(
            [_values(row, SESSION) for row in rows],
            [(row.session_id, *_values(row, RUN)) for row in conn.execute(_RUNS, {"sessions": session_ids})],
            _events(conn, session_ids),
        )
        after = session_ids[-1]


def _events(conn: Connection, session_ids: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    options = {"stream_results": True, "yield_per": _ROWS}
    for row in conn.execute(_EVENTS, {"sessions": list(session_ids)}, execution_options=options):
        yield (row.session_id, *_event(row.frame))


def _values(row: Row[Any], names: Sequence[str]) -> tuple[Any, ...]:
    values = (getattr(row, name) for name in names)
    return tuple(iso(value) if isinstance(value, datetime) else value for value in values)


def _event(frame: str) -> Iterator[Any]:
    event = _parsed(frame)["data"]
    for name in EVENT:
        if name != "id":
            value = event.get(name)
            # The file needs a time.
            yield _json(value) if name in _JSON else _plain("" if value is None and name == "timestamp" else value)


def _parsed(frame: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = orjson.loads(frame)
    except orjson.JSONDecodeError:
        found = json.loads(frame, parse_float=_number)
    return found


def _number(source: str) -> float | str:
    # JSON has no infinity.
    found = float(source)
    return found if math.isfinite(found) else source


def _json(value: Any) -> str | None:
    # The former coordinator stored nothing for these.
    return None if value is None or value in ("", [], {}) else json.dumps(value)


def _plain(value: Any) -> str | int | None:
    """Return a text or a number; the API takes any JSON there, which becomes its text."""
    if value is None or (isinstance(value, int) and abs(value) <= _LARGEST_INT):
        return value
    return storable(value if isinstance(value, str) else json.dumps(value))
