from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeAlias

from sqlalchemy import Connection, text

from models.auth.audit import Act, audited_report, record_acts
from models.core.callers import ADMIN, Caller
from models.core.errors import CoordinatorError, NotFound, RunnerNotRegistered, StaleClaim, Unstorable
from models.core.ids import uuid7
from models.core.limits import DEFAULT_LIMITS, Limits
from models.core.rounds import in_rounds
from models.core.statuses import IN_HAND, RunStatus
from models.core.storable_text import storable
from models.runs.report import is_reporter, reporters
from models.runs.stop import close_stops
from models.runs.superseded import end_superseded
from models.state.events_outbox import record_events, session_updated
from models.state.locked_rows import LockedRun
from models.state.locks import LockedRows, lock_runs, lock_sessions, refresh_sessions
from models.state.session_status import ProcessChange, SessionChange, update_session_status
from models.state.sessions import Session, read_sessions
from models.state.transitions import update_status_and_record
from models.state.visibility import ever_held, find_visible, is_visible

PATCHABLE = ("project_dir", "agent_name", "last_resumed_at", "executor_session_id", "executor_profile", "hostname")


@dataclass(frozen=True, slots=True)
class Bind:
    """Request of a process to be the session's executor, with its place. By ``event_uid`` a repeat writes one event."""

    caller: Caller
    session_id: str
    executor_session_id: str
    hostname: str
    executor_profile: str
    project_dir: str | None = None
    event_uid: str = field(default_factory=uuid7)


@dataclass(frozen=True, slots=True)
class Patch:
    """Change of a session's metadata: any of ``PATCHABLE``; what is absent or None stays. ``event_uid`` as in Bind."""

    caller: Caller
    session_id: str
    values: Mapping[str, str | None]
    event_uid: str = field(default_factory=uuid7)


@dataclass(frozen=True, slots=True)
class ReportSessionStatus:
    """Report of a runner that the session's live process has ended: finished, failed or stopped.

    ``caller`` as in ``Report``.
    """

    runner_id: str
    session_id: str
    status: str
    caller: Caller = ADMIN

    @property
    def subject(self) -> str | None:
        return self.caller.subject


BindResult: TypeAlias = Session | CoordinatorError

# Leave columns without a new value. With a claimed or running run also store its token as bound.
_WRITE = text("""
    UPDATE sessions s
    SET project_dir = coalesce(w.project_dir, s.project_dir),
        agent_name = coalesce(w.agent_name, s.agent_name),
        last_resumed_at = coalesce(w.last_resumed_at, s.last_resumed_at),
        executor_session_id = coalesce(w.executor_session_id, s.executor_session_id),
        executor_profile = coalesce(w.executor_profile, s.executor_profile),
        hostname = coalesce(w.hostname, s.hostname),
        bound_token = coalesce(w.bound_token, s.bound_token),
        last_sign_at = clock_timestamp()
    FROM unnest(CAST(:sessions AS text[]), CAST(:project_dir AS text[]), CAST(:agent_name AS text[]),
                CAST(:last_resumed_at AS timestamptz[]), CAST(:executor_session_id AS text[]),
                CAST(:executor_profile AS text[]), CAST(:hostname AS text[]), CAST(:bound_token AS text[]))
        AS w(session_id, project_dir, agent_name, last_resumed_at, executor_session_id, executor_profile, hostname,
             bound_token)
    WHERE s.session_id = w.session_id
""")

_PLACES = text("""
    SELECT runner_id, hostname, executor_profile FROM runners WHERE runner_id = ANY(CAST(:runners AS text[]))
""")


def bind_sessions(conn: Connection, items: Sequence[Bind]) -> list[BindResult]:
    """Store each session's affinity; its status becomes running while a process has a run of it in hand.

    Results: the updated session, NotFound, or StaleClaim when that run is with another host or profile.
    """
    locked = lock_runs(conn, session_ids={item.session_id for item in items})
    in_hand = [run.runner_id for run in locked.runs.values() if run.status in IN_HAND]
    rows = conn.execute(_PLACES, {"runners": in_hand}) if in_hand else ()
    places = {row.runner_id: (row.hostname, row.executor_profile) for row in rows}
    shown = find_visible(conn, [(item.caller, item.session_id) for item in items])
    results: list[BindResult] = [NotFound("session", item.session_id) for item in items]
    visible: list[int] = []
    for ordinal, item in enumerate(items):
        if not locked.shows(item.session_id, item.caller, shown):
            continue
        run = bound_run(locked, item.session_id)
        if run is not None and is_elsewhere(item, places.get(run.holder[0])):
            results[ordinal] = StaleClaim(run.run_id, run.status)
        else:
            visible.append(ordinal)
    for one_round in in_rounds(items[ordinal].session_id for ordinal in visible):
        binds = [items[visible[index]] for index in one_round]
        _write(conn, [(item.session_id, _affinity(item), bound_run(locked, item.session_id)) for item in binds])
        updates = update_session_status(conn, [SessionChange(item.session_id) for item in binds])
        found = {session_id: update.session for session_id, update in updates.items()}
        _record_updates(conn, binds, found)
        for index in one_round:
            results[visible[index]] = found[items[visible[index]].session_id]
    return results


def bound_run(locked: LockedRows, session_id: str) -> LockedRun | None:
    for run in locked.unfinished_of(session_id):
        if run.status == RunStatus.RUNNING or (run.status == RunStatus.CLAIMED and run.delivered_at is not None):
            return run
    return None


def is_elsewhere(item: Bind, place: tuple[str, str] | None) -> bool:
    return place is not None and place != (item.hostname, item.executor_profile)


def _record_updates(conn: Connection, items: Sequence[Bind | Patch], found: Mapping[str, Session]) -> None:
    rows = [replace(session_updated(found[item.session_id]), event_uid=item.event_uid) for item in items]
    record_events(conn, rows)


def _affinity(item: Bind) -> dict[str, str | None]:
    affinity = {
        "executor_session_id": item.executor_session_id,
        "hostname": item.hostname,
        "executor_profile": item.executor_profile,
        "project_dir": item.project_dir,
    }
    return {name: None if value is None else storable(value) for name, value in affinity.items()}


def _write(
    conn: Connection, changes: Sequence[tuple[str, Mapping[str, str | datetime | None], LockedRun | None]]
) -> None:
    columns = {name: [values.get(name) for _, values, _ in changes] for name in PATCHABLE}
    tokens = [None if run is None else run.claim_token for _, _, run in changes]
    sessions = [session_id for session_id, _, _ in changes]
    conn.execute(_WRITE, {"sessions": sessions, "bound_token": tokens, **columns})


def patch_sessions(conn: Connection, items: Sequence[Patch]) -> list[BindResult]:
    """Change metadata of each session. Results: the updated session, NotFound, or Unstorable for a bad time."""
    locked = LockedRows(sessions=lock_sessions(conn, {item.session_id for item in items}))
    shown = find_visible(conn, [(item.caller, item.session_id) for item in items])
    results: list[BindResult] = [NotFound("session", item.session_id) for item in items]
    wanted: dict[int, dict[str, str | datetime]] = {}
    for ordinal, item in enumerate(items):
        if locked.shows(item.session_id, item.caller, shown):
            values = patch_values(item.values)
            if isinstance(values, Unstorable):
                results[ordinal] = values
            else:
                wanted[ordinal] = values
    visible = list(wanted)
    for one_round in in_rounds(items[ordinal].session_id for ordinal in visible):
        ordinals = [visible[index] for index in one_round]
        changing = [ordinal for ordinal in ordinals if wanted[ordinal]]
        if changing:
            _write(conn, [(items[ordinal].session_id, wanted[ordinal], None) for ordinal in changing])
        found = read_sessions(conn, [items[ordinal].session_id for ordinal in ordinals])
        _record_updates(conn, [items[ordinal] for ordinal in changing], found)
        for ordinal in ordinals:
            results[ordinal] = found[items[ordinal].session_id]
    return results


def patch_values(values: Mapping[str, str | None]) -> dict[str, str | datetime] | Unstorable:
    given: dict[str, str | datetime] = {}
    for name in PATCHABLE:
        value = values.get(name)
        if value is not None:
            given[name] = storable(value)
    moment = values.get("last_resumed_at")
    if moment is not None:
        try:
            parsed = datetime.fromisoformat(moment)
        except ValueError:
            return Unstorable("last_resumed_at is not an ISO 8601 timestamp")
        given["last_resumed_at"] = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return given


def report_session_statuses(
    conn: Connection,
    items: Sequence[ReportSessionStatus],
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> list[bool | CoordinatorError]:
    """End the live process of each session as its runner reports; True where that changed something.

    Accepted without effect from another runner, or while a run of the session is in hand (PROTOCOL, Runners). NotFound
    for a subject that never held a run of the session. Results: bool, NotFound or RunnerNotRegistered.
    """
    known = reporters(conn, {item.runner_id for item in items}, limits)
    concerned = {item.session_id for item in items if is_reporter(known, item.runner_id, item.subject)}
    locked = lock_runs(conn, session_ids=concerned)
    shown = ever_held(conn, [(item.caller, item.session_id) for item in items])
    results: list[bool | CoordinatorError] = [NotFound("session", item.session_id) for item in items]
    visible: list[int] = []
    for ordinal, item in enumerate(items):
        if not is_reporter(known, item.runner_id, item.subject):
            results[ordinal] = RunnerNotRegistered(item.runner_id)
        elif item.session_id in locked.sessions and is_visible(item.caller, item.session_id, shown):
            visible.append(ordinal)
    for number, one_round in enumerate(in_rounds(items[ordinal].session_id for ordinal in visible)):
        ordinals = [visible[index] for index in one_round]
        if number:
            locked = refresh_sessions(conn, locked, {items[ordinal].session_id for ordinal in ordinals})
        end_superseded(conn, [(items[ordinal].runner_id, items[ordinal].session_id) for ordinal in ordinals])
        ending = [items[ordinal] for ordinal in ordinals if ends_process(locked, items[ordinal])]
        close_stops(conn, [item.session_id for item in ending])
        update_status_and_record(
            conn, [SessionChange(item.session_id, item.status, live=ProcessChange.CLEAR) for item in ending]
        )
        acts = [
            act
            for item in ending
            for act in audited_report(
                item.caller,
                Act.SESSION_ENDED,
                item.session_id,
                locked.sessions[item.session_id].owner,
                known[item.runner_id].owner,
            )
        ]
        record_acts(conn, acts)
        for ordinal in ordinals:
            results[ordinal] = items[ordinal] in ending
    return results


def ends_process(locked: LockedRows, item: ReportSessionStatus) -> bool:
    if locked.sessions[item.session_id].runner_id != item.runner_id:
        return False
    return not any(run.status in IN_HAND for run in locked.unfinished_of(item.session_id))
