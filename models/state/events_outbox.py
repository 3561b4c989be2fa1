"""Write events of the feed in the transaction of the change that they report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Any

import orjson
from sqlalchemy import Connection, text

from models.core.retries import Failure
from models.core.statuses import RunStatus
from models.schema.columns import array_rows
from models.schema.sql import sql
from models.schema.tables import events
from models.state.locked_rows import LockedRun
from models.state.runs import Run, iso
from models.state.sessions import Session, session_json


@dataclass(frozen=True, slots=True)
class EventRow:
    """Event to write. ``frame`` is the JSON text that every client will be sent, fixed now.

    ``session_id`` is empty where no session is concerned. With ``event_uid`` a repeat of the same event stores nothing.
    """

    kind: str
    session_id: str
    frame: str
    owner: str | None = None
    run_id: str | None = None
    event_type: str | None = None
    event_uid: str | None = None


EVENT_COLUMNS = tuple(field.name for field in fields(EventRow))
_values_of = attrgetter(*EVENT_COLUMNS)
_RECORD_ONCE = sql(
    """
    INSERT INTO events ($columns)
    SELECT $values FROM unnest($arrays) WITH ORDINALITY AS e($columns, place)
    ORDER BY e.place
    ON CONFLICT (event_uid) DO NOTHING
    """,
    **array_rows("e", events, EVENT_COLUMNS),
)
_RECORD = text("""
    INSERT INTO unnumbered_batches (first_id, ids, kinds, session_ids, frames, owners, run_ids, event_types)
    SELECT drawn.ids[1], drawn.ids, CAST(:kind AS text[]), CAST(:session_id AS text[]),
        CAST(CAST(:frame AS text[]) AS json[]), CAST(:owner AS text[]), CAST(:run_id AS text[]),
        CAST(:event_type AS text[])
    FROM (SELECT ARRAY(SELECT nextval('events_id_seq') FROM generate_series(1, :events)) AS ids) drawn
""")


def record_events(conn: Connection, rows: Sequence[EventRow]) -> None:
    """Write the events in order; one whose ``event_uid`` is stored already is left out.

    Call it once the rows of the change are locked, so that ids are in causal order (promise 3).
    """
    if not rows:
        return
    columns = zip(*map(_values_of, rows), strict=True)
    values = {name: list(column) for name, column in zip(EVENT_COLUMNS, columns, strict=True)}
    if any(values["event_uid"]):
        conn.execute(_RECORD_ONCE, values)
    else:
        conn.execute(_RECORD, {**values, "events": len(rows)})


def encode(frame: dict[str, Any]) -> str:
    return orjson.dumps(frame).decode()


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


def run_created(run_id: str, session_id: str, owner: str | None) -> EventRow:
    return _run_event(run_id, session_id, owner, status=RunStatus.PENDING.value, runner_id=None, attempt=0, error=None)


def run_updated(run: LockedRun | Run, reason: str | None = None, failure: Failure | None = None) -> EventRow:
    """Return the event of a run as it is now; ``reason`` and ``failure`` are in the frame only if there is one."""
    return _run_event(
        run.run_id,
        run.session_id,
        run.owner,
        status=run.status,
        runner_id=run.runner_id,
        attempt=run.attempt,
        error=run.error,
        more={"reason": reason, "failure": None if failure is None else _failure_json(failure)},
    )


def _failure_json(failure: Failure) -> dict[str, Any]:
    return {"error": failure.error, "exit_code": failure.exit_code, "error_class": failure.error_class}


def _run_event(
    run_id: str,
    session_id: str,
    owner: str | None,
    *,
    status: str,
    runner_id: str | None,
    attempt: int,
    error: str | None,
    more: Mapping[str, Any] | None = None,
) -> EventRow:
    shown: dict[str, Any] = {
        "run_id": run_id,
        "session_id": session_id,
        "status": status,
        "runner_id": runner_id,
        "attempt": attempt,
        "error": error,
    }
    shown |= {name: value for name, value in (more or {}).items() if value is not None}
    return EventRow("run_updated", session_id, encode({"run": shown}), owner, run_id)


def run_failed(run: LockedRun) -> EventRow:
    failure = {"run_id": run.run_id, "session_id": run.session_id, "error": run.error}
    return EventRow("run_failed", run.session_id, encode(failure), run.owner, run.run_id)


def session_updated(session: Session, kind: str = "session_updated") -> EventRow:
    return EventRow(kind, session.session_id, encode({"session": session_json(session)}), session.owner)


def session_event(run: LockedRun, event_type: str, moment: datetime | None, **values: object) -> EventRow:
    """Return an event that we write on a session's own timeline for a run; ``moment`` is by the clock of Postgres."""
    shown: dict[str, object] = dict.fromkeys(EVENT_FIELDS)
    shown |= {"event_type": event_type, "session_id": run.session_id, "timestamp": iso(moment)}
    shown |= values
    frame = encode({"data": shown})
    return EventRow("event", run.session_id, frame, run.owner, run.run_id, event_type)
