"""Make of a file's rows those that we store. Decisions only: functions raise RowFault for what cannot be stored."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

import orjson

from models.claims.matching import Demands
from models.core.statuses import TERMINAL, ExecutionMode, RunStatus, RunType, SessionStatus
from models.core.storable_text import storable_error
from models.state.events_outbox import EVENT_FIELDS
from models.transfer.faults import Reason, RowFault, shown
from models.transfer.old_file import OldSession, Values
from models.transfer.values import (
    LONGEST_TYPE,
    demands,
    identifier,
    json_fragment,
    json_object,
    moment,
    needed,
    parsed_moment,
    text,
)

RESTARTED: Final = "Coordinator restarted during execution"
# A runner that was running it must register anew: nothing tells whether its process goes on.
_IMPORTED_AS: Final = {
    RunStatus.CLAIMED: RunStatus.PENDING,
    RunStatus.RUNNING: RunStatus.FAILED,
    RunStatus.STOPPING: RunStatus.STOPPED,
}
_OUTCOME_OF_RUN: Final = {
    RunStatus.COMPLETED: SessionStatus.FINISHED,
    RunStatus.FAILED: SessionStatus.FAILED,
    RunStatus.STOPPED: SessionStatus.STOPPED,
}
_OUTCOME: Final = {
    SessionStatus.IDLE: SessionStatus.FINISHED,
    SessionStatus.FINISHED: SessionStatus.FINISHED,
    SessionStatus.FAILED: SessionStatus.FAILED,
    SessionStatus.STOPPED: SessionStatus.STOPPED,
}
_TEXTS: Final = ("tool_name", "error", "reason", "role", "result_text")
_JSON: Final = ("tool_input", "tool_output", "content", "result_data")
_BLUEPRINT: Final = "resolved_agent_blueprint"
_NOTHING: Final = dict.fromkeys(EVENT_FIELDS)

Word = TypeVar("Word", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Largest sizes in bytes that are stored, as for requests."""

    parameters: int
    event: int


@dataclass(frozen=True, slots=True)
class ImportedRun:
    """Run to store. ``completed_at`` is None for one that ends by its import."""

    run_id: str
    type: RunType
    agent_name: str | None
    parameters: str
    project_dir: str | None
    parent_session_id: str | None
    execution_mode: ExecutionMode
    scope: str | None
    resolved_agent_blueprint: str | None
    demands: Demands
    status: RunStatus
    runner_id: str | None
    error: str | None
    created_at: datetime
    claimed_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    attempt: int
    change: str | None


@dataclass(frozen=True, slots=True)
class ImportedSession:
    """Session to store, with its runs in order. ``outcome`` is what it shows once none of them is pending."""

    session_id: str
    status: SessionStatus
    outcome: SessionStatus | None
    project_dir: str | None
    agent_name: str | None
    parent_session_id: object
    executor_session_id: str | None
    executor_profile: str | None
    hostname: str | None
    scope: str | None
    created_at: datetime
    last_resumed_at: datetime | None
    runs: Sequence[ImportedRun]
    changes: Counter[str]


@dataclass(frozen=True, slots=True)
class ImportedEvent:
    event_type: str
    run_id: str | None
    frame: str


def convert_session(old: OldSession, session_id: str, bounds: Bounds) -> ImportedSession:
    """Return the session with its runs; claimed ones are pending again, running ones failed, stopping ones stopped."""
    row = old.row
    if old.depth is None:
        raise RowFault(Reason.PARENT_CYCLE, f"parent_session_id {shown(row['parent_session_id'])}")
    former = _word(SessionStatus, row["status"], "status", Reason.UNKNOWN_STATUS)
    runs = sorted((_run(run, bounds) for run in old.runs), key=lambda run: (run.created_at, run.run_id))
    outcome = _OUTCOME.get(former) or _outcome_of(runs)
    pending = any(run.status is RunStatus.PENDING for run in runs)
    status = SessionStatus.PENDING if pending else outcome or SessionStatus.STOPPED
    changes = Counter(f"runs {run.change}" for run in runs if run.change is not None)
    if status is not former:
        changes[f"sessions {former} -> {status}"] += 1
    scopes = [run.scope for run in runs if run.scope is not None]
    return ImportedSession(
        session_id=session_id,
        status=status,
        outcome=outcome,
        project_dir=text(row["project_dir"], "project_dir"),
        agent_name=text(row["agent_name"], "agent_name"),
        parent_session_id=row["parent_session_id"],
        executor_session_id=text(row["executor_session_id"], "executor_session_id"),
        executor_profile=text(row["executor_profile"], "executor_profile"),
        hostname=text(row["hostname"], "hostname"),
        scope=scopes[-1] if scopes else None,
        created_at=needed(moment(row["created_at"], "created_at"), "created_at"),
        last_resumed_at=moment(row["last_resumed_at"], "last_resumed_at"),
        runs=runs,
        changes=changes,
    )


def convert_events(session: ImportedSession, rows: Iterable[Values], bounds: Bounds) -> Iterator[ImportedEvent]:
    """Return the events with the frames that clients are sent, and the runs that they belong to.

    The file does not say which run an event is of: it is that of the last start before the event's time, for events
    before any start the first run. One whose time is unreadable is of the run of the event before it.
    """
    started = [run for run in session.runs if run.started_at is not None or run.claimed_at is not None]
    starts = sorted((run.started_at or run.claimed_at or run.created_at, run.run_id) for run in started)
    moments = [start for start, _ in starts]
    run_id = starts[0][1] if starts else None
    for row in rows:
        where = f"event {row['id']}"
        if len(starts) > 1 and (at := parsed_moment(row["timestamp"])) is not None:
            run_id = starts[max(0, bisect_right(moments, at) - 1)][1]
        event_type = needed(text(row["event_type"], f"{where} event_type", LONGEST_TYPE), f"{where} event_type")
        frame = _frame(session.session_id, event_type, row, where)
        if len(frame) > bounds.event:
            raise RowFault(Reason.TOO_LARGE, f"{where}: {len(frame)} bytes, at most {bounds.event}")
        yield ImportedEvent(event_type, run_id, frame.decode())


def _frame(session_id: str, event_type: str, row: Values, where: str) -> bytes:
    event: dict[str, Any] = _NOTHING | {"event_type": event_type, "session_id": session_id}
    event["timestamp"] = needed(row["timestamp"], f"{where} timestamp")
    event["exit_code"] = row["exit_code"]
    for name in _TEXTS:
        event[name] = row[name]
    for name in _JSON:
        if row[name] is not None:
            event[name] = json_fragment(row[name], f"{where} {name}")
    try:
        return orjson.dumps({"data": event})
    except orjson.JSONEncodeError:
        raise _unencodable(row, where) from None


def _unencodable(row: Values, where: str) -> RowFault:
    for name in ("timestamp", *_TEXTS, "exit_code"):
        if isinstance(row[name], bytes):
            return RowFault(Reason.NOT_TEXT, f"{where} {name}: {shown(row[name])}")
    return RowFault(Reason.NOT_UTF8, where)


def _run(row: Values, bounds: Bounds) -> ImportedRun:
    run_id = identifier(row["run_id"], "run_id")
    at = f"run {run_id}"
    former = _word(RunStatus, row["status"], f"{at} status", Reason.UNKNOWN_STATUS)
    status = _IMPORTED_AS.get(former, former)
    created_at = needed(moment(row["created_at"], f"{at} created_at"), f"{at} created_at")
    claimed_at, started_at, completed_at = (
        moment(row[name], f"{at} {name}") for name in ("claimed_at", "started_at", "completed_at")
    )
    error = storable_error(text(row["error"], f"{at} error", None))
    runner_id = text(row["runner_id"], f"{at} runner_id")
    if status is RunStatus.PENDING:
        claimed_at = started_at = completed_at = error = runner_id = None
    elif former is not status:
        completed_at = None
        error = RESTARTED if status is RunStatus.FAILED else error
    elif completed_at is None:
        completed_at = max(known for known in (created_at, claimed_at, started_at) if known is not None)
    parameters = json_object(row["parameters"], f"{at} parameters", bounds.parameters)
    return ImportedRun(
        run_id=run_id,
        type=_word(RunType, row["type"], f"{at} type", Reason.UNKNOWN_TYPE),
        agent_name=text(row["agent_name"], f"{at} agent_name"),
        parameters=needed(parameters, f"{at} parameters"),
        project_dir=text(row["project_dir"], f"{at} project_dir"),
        parent_session_id=text(row["parent_session_id"], f"{at} parent_session_id"),
        execution_mode=_word(ExecutionMode, row["execution_mode"], f"{at} execution_mode", Reason.UNKNOWN_TYPE),
        scope=json_object(row["scope"], f"{at} scope"),
        resolved_agent_blueprint=json_object(row[_BLUEPRINT], f"{at} {_BLUEPRINT}"),
        demands=demands(row["demands"], f"{at} demands"),
        status=status,
        runner_id=runner_id,
        error=error,
        created_at=created_at,
        claimed_at=claimed_at,
        started_at=started_at,
        completed_at=completed_at,
        attempt=1 if started_at is not None else 0,
        change=None if former is status else f"{former} -> {status}",
    )


def _outcome_of(runs: Sequence[ImportedRun]) -> SessionStatus | None:
    ended = [run.status for run in runs if run.status in TERMINAL]
    return _OUTCOME_OF_RUN[ended[-1]] if ended else None


def _word(words: type[Word], value: object, where: str, reason: Reason) -> Word:
    found = next((word for word in words if word == value), None)
    if found is None:
        raise RowFault(reason, f"{where}: {shown(value)}")
    return found
