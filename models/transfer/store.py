"""Store a group of sessions of a file with their runs and events, whole sessions in one transaction."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import chain, islice
from typing import Any, Final

from sqlalchemy import Connection, text

from models.claims.matching import ensure_profiles
from models.core.ids import uuid7
from models.core.statuses import RunStatus
from models.feed.sequence import PASS_EVENTS, sequence_feed
from models.schema.columns import array_rows
from models.schema.sql import sql
from models.schema.tables import runs, sessions
from models.state.events_outbox import encode, session_updated
from models.state.sessions import Session
from models.transfer.convert import Bounds, ImportedEvent, ImportedRun, ImportedSession, convert_events, convert_session
from models.transfer.faults import Reason, Refusal, RowFault, shown
from models.transfer.old_file import OldFile, OldGroup, OldSession
from models.transfer.values import identifier

# Begin of the incarnation of an imported session; the digest of the file's rows follows.
_MARK: Final = "import:"
# Seconds for which a pending run waits for a runner that satisfies it: runners are moved after the import.
NO_MATCH_SECONDS: Final = 86_400
# Pending runs are older than every run submitted here, and their ids do not say so.
_PRIORITY: Final = 1
_IMPORTED: Final = "imported"
# A session of a million events is inserted by one statement.
_LONGEST_STATEMENT: Final = "600000"
_ROWS: Final = 1_000

_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended('coordinator.import', 0))")

_KNOWN = text("""
    SELECT session_id, incarnation, depth FROM sessions WHERE session_id = ANY(CAST(:sessions AS text[]))
""")

_KNOWN_RUNS = text("SELECT run_id FROM runs WHERE run_id = ANY(CAST(:runs AS text[]))")

# Filled before anything is locked, since reading the file may pause.
_STAGE = text("""
    CREATE TEMP TABLE imported_events (place bigint PRIMARY KEY, kind text NOT NULL, event_type text,
        session_id text NOT NULL, run_id text, frame text NOT NULL) ON COMMIT DROP
""")

_FILL = text("""
    INSERT INTO imported_events (place, kind, event_type, session_id, run_id, frame)
    SELECT :before + e.place, e.kind, e.event_type, e.session_id, e.run_id, e.frame
    FROM unnest(CAST(:kinds AS text[]), CAST(:event_types AS text[]), CAST(:session_ids AS text[]),
                CAST(:run_ids AS text[]), CAST(:frames AS text[]))
        WITH ORDINALITY AS e(kind, event_type, session_id, run_id, frame, place)
""")

_OF_SESSION: Final = (
    "session_id",
    "incarnation",
    "owner",
    "depth",
    "status",
    "last_outcome",
    "next_run",
    "project_dir",
    "agent_name",
    "parent_session_id",
    "executor_session_id",
    "executor_profile",
    "hostname",
    "scope",
    "created_at",
    "last_resumed_at",
)
# Hide by first_event_id the remains of a former session of the same id, as submissions do.
_INSERT_SESSIONS = sql(
    """
    INSERT INTO sessions ($columns, first_event_id)
    SELECT $values, e.next_id
    FROM unnest($arrays) AS n($columns)
    CROSS JOIN (SELECT last_value + CASE WHEN is_called THEN 1 ELSE 0 END AS next_id FROM events_id_seq) e
    ORDER BY n.session_id
    """,
    **array_rows("n", sessions, _OF_SESSION),
)

_OF_RUN: Final = (
    "run_id",
    "session_id",
    "session_seq",
    "owner",
    "type",
    "agent_name",
    "parameters",
    "project_dir",
    "parent_session_id",
    "execution_mode",
    "scope",
    "demands",
    "profile_id",
    "status",
    "ready",
    "priority",
    "attempt",
    "runner_id",
    "error",
    "created_at",
    "claimed_at",
    "started_at",
)
_INSERT_RUNS = sql(
    """
    INSERT INTO runs ($columns, no_match_timeout_seconds, completed_at, match_deadline_at)
    SELECT $values, CAST(:no_match AS integer),
        CASE WHEN n.status IN $TERMINAL THEN coalesce(n.completed_at, now()) END,
        CASE WHEN n.ready THEN now() + make_interval(secs => CAST(:no_match AS integer)) END
    FROM unnest($arrays, CAST(:completed_at AS timestamptz[])) AS n($columns, completed_at)
    ORDER BY n.run_id
    """,
    **array_rows("n", runs, _OF_RUN),
)

_ALLOW_LONG_STATEMENTS = text("SELECT set_config('statement_timeout', :milliseconds, true)")

_HEAD = text("SELECT last_pos FROM feed_head FOR UPDATE")

# With positions at once: clients see a session's history when it is committed, and no event is written twice.
_NUMBER = text("""
    INSERT INTO events (feed_pos, kind, event_type, session_id, run_id, owner, frame)
    SELECT :head + e.place, e.kind, e.event_type, e.session_id, e.run_id, CAST(:owner AS text), CAST(e.frame AS json)
    FROM imported_events e ORDER BY e.place
""")

_MOVE_HEAD = text("UPDATE feed_head SET last_pos = :last_pos")


@dataclass(slots=True)
class Imported:
    """Result of a group: numbers of rows, changes by name, and what was refused."""

    sessions: int = 0
    runs: int = 0
    events: int = 0
    already_there: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    refusals: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Candidate:
    old: OldSession
    session: ImportedSession
    events: Sequence[ImportedEvent] | None


@dataclass(frozen=True, slots=True)
class _Placed:
    """Candidate with its incarnation and its place in the tree: ``parent`` is None for a root."""

    candidate: _Candidate
    incarnation: str
    parent: str | None
    depth: int


@dataclass(frozen=True, slots=True)
class _Known:
    sessions: Mapping[str, tuple[str, int]]
    runs: Collection[str]


def import_group(
    conn: Connection, file: OldFile, group: OldGroup, owner: str | None, bounds: Bounds, *, dry_run: bool = False
) -> Imported:
    """Store each session of the group whole, or refuse it with the reason. Safe to repeat, also concurrently.

    A session that was stored before is recognized by the digest in its incarnation. Ended runs write no event: they did
    not end now, and curves do not count them. Raises RowFault for an event of a session that does not fit into memory;
    roll the transaction back then, nothing of the group is left.
    """
    conn.execute(_ONE_AT_A_TIME)
    result = Imported()
    candidates: list[_Candidate] = []
    known = _known(conn, group)
    for old in group.sessions:
        try:
            candidate = _candidate(old, known, bounds)
        except RowFault as fault:
            result.refusals.append(refusal(old, fault))
            continue
        if candidate is None:
            result.already_there += 1
        else:
            candidates.append(candidate)
    placed = _place(candidates, known, result.changes)
    for each in placed:
        result.sessions += 1
        result.runs += len(each.candidate.session.runs)
        result.changes.update(each.candidate.session.changes)
    if dry_run:
        result.events = sum(1 for each in placed for _ in _events_of(each.candidate, file, bounds))
    elif placed:
        result.events = _store(conn, placed, file, owner, bounds)
    return result


def refusal(old: OldSession, fault: RowFault) -> Refusal:
    session_id = old.row["session_id"]
    shown_id = session_id if isinstance(session_id, str) and session_id.isprintable() else shown(session_id)
    return Refusal(fault.reason, "session", shown_id, fault.detail)


def _known(conn: Connection, group: OldGroup) -> _Known:
    named = [value for old in group.sessions for value in (old.row["session_id"], old.row["parent_session_id"])]
    run_ids = [run["run_id"] for old in group.sessions for run in old.runs]
    rows = conn.execute(_KNOWN, {"sessions": _texts(named)})
    found = {row.session_id: (row.incarnation, row.depth) for row in rows}
    return _Known(found, set(conn.execute(_KNOWN_RUNS, {"runs": _texts(run_ids)}).scalars()))


def _texts(values: Iterable[object]) -> list[str]:
    found = set()
    for value in values:
        try:
            found.add(identifier(value, ""))
        except RowFault:
            continue
    return sorted(found)


def _candidate(old: OldSession, known: _Known, bounds: Bounds) -> _Candidate | None:
    """Return what is to be stored, None for a session that was."""
    session_id = identifier(old.row["session_id"], "session_id")
    if session_id in known.sessions:
        incarnation, _ = known.sessions[session_id]
        if incarnation.startswith(f"{_MARK}{old.digest}:"):
            return None
        if incarnation.startswith(_MARK):
            raise RowFault(Reason.CHANGED_SINCE_IMPORT, "delete the session here to import it anew")
        raise RowFault(Reason.ID_TAKEN, f"session {session_id}")
    session = convert_session(old, session_id, bounds)
    taken = [run.run_id for run in session.runs if run.run_id in known.runs]
    if taken:
        raise RowFault(Reason.ID_TAKEN, f"run {taken[0]}")
    events = None if old.events is None else list(convert_events(session, old.events, bounds))
    return _Candidate(old, session, events)


def _place(candidates: Sequence[_Candidate], known: _Known, changes: Counter[str]) -> list[_Placed]:
    """Return the candidates with their parents; one whose parent was not imported becomes a root."""
    depths = {
        session_id: depth
        for session_id, (incarnation, depth) in known.sessions.items()
        if incarnation.startswith(_MARK)
    }
    placed: list[_Placed] = []
    for candidate in candidates:
        named = candidate.session.parent_session_id
        parent = named if isinstance(named, str) and named in depths else None
        if named is not None and parent is None:
            changes["sessions without their parents, which were not imported"] += 1
        depth = 0 if parent is None else depths[parent] + 1
        depths[candidate.session.session_id] = depth
        placed.append(_Placed(candidate, f"{_MARK}{candidate.old.digest}:{uuid7()}", parent, depth))
    return placed


def _events_of(candidate: _Candidate, file: OldFile, bounds: Bounds) -> Iterable[ImportedEvent]:
    if candidate.events is not None:
        return candidate.events
    return convert_events(candidate.session, file.events_of(candidate.old), bounds)


def _store(conn: Connection, placed: Sequence[_Placed], file: OldFile, owner: str | None, bounds: Bounds) -> int:
    """Write the rows; return the number of the file's events. The feed is locked last, from the numbering on."""
    conn.execute(_STAGE)
    staged = _stage(conn, chain.from_iterable(_history(each, file, owner, bounds) for each in placed))
    moved = [(each.candidate.session.session_id, run) for each in placed for run in each.candidate.session.runs]
    profiles = ensure_profiles(conn, [run.demands for _, run in moved])
    conn.execute(_INSERT_SESSIONS, _columns([_session_row(each, owner) for each in placed], _OF_SESSION))
    if moved:
        rows = [row for each in placed for row in _run_rows(each.candidate.session, owner, profiles)]
        conn.execute(_INSERT_RUNS, _columns(rows, (*_OF_RUN, "completed_at")) | {"no_match": NO_MATCH_SECONDS})
    conn.execute(_ALLOW_LONG_STATEMENTS, {"milliseconds": _LONGEST_STATEMENT})
    # What was committed before comes before it.
    while sequence_feed(conn) >= PASS_EVENTS:
        pass
    head = conn.execute(_HEAD).scalar_one()
    conn.execute(_NUMBER, {"head": head, "owner": owner})
    conn.execute(_MOVE_HEAD, {"last_pos": head + staged})
    pending = sum(run.status is RunStatus.PENDING for _, run in moved)
    return staged - len(placed) - pending


_FeedRow = tuple[str, str | None, str, str | None, str]


def _history(placed: _Placed, file: OldFile, owner: str | None, bounds: Bounds) -> Iterator[_FeedRow]:
    """Return the rows of a session on the feed: that it is there, its events, and the runs that still have to run."""
    session = placed.candidate.session
    values = {name.name: getattr(session, name.name, None) for name in fields(Session)}
    values |= {"parent_session_id": placed.parent, "owner": owner, "depth": placed.depth}
    created = session_updated(Session(**values), "session_created")
    yield created.kind, None, session.session_id, None, created.frame
    for event in _events_of(placed.candidate, file, bounds):
        yield "event", event.event_type, session.session_id, event.run_id, event.frame
    for run in session.runs:
        if run.status is RunStatus.PENDING:
            yield "run_updated", None, session.session_id, run.run_id, _pending_frame(session.session_id, run)


def _pending_frame(session_id: str, run: ImportedRun) -> str:
    # With a reason it is no submission, neither for the timeline nor for the counts.
    frame = {"run_id": run.run_id, "session_id": session_id, "status": run.status, "runner_id": None, "attempt": 0}
    return encode({"run": frame | {"error": None, "reason": _IMPORTED}})


def _stage(conn: Connection, rows: Iterator[_FeedRow]) -> int:
    staged = 0
    while batch := list(islice(rows, _ROWS)):
        kinds, event_types, session_ids, run_ids, frames = (list(column) for column in zip(*batch, strict=True))
        conn.execute(
            _FILL,
            {
                "before": staged,
                "kinds": kinds,
                "event_types": event_types,
                "session_ids": session_ids,
                "run_ids": run_ids,
                "frames": frames,
            },
        )
        staged += len(batch)
    return staged


def _columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in names}


def _session_row(placed: _Placed, owner: str | None) -> dict[str, Any]:
    session = placed.candidate.session
    values = {name: getattr(session, name) for name in _OF_SESSION if hasattr(session, name)}
    return values | {
        "incarnation": placed.incarnation,
        "owner": owner,
        "depth": placed.depth,
        "status": session.status.value,
        "last_outcome": None if session.outcome is None else session.outcome.value,
        "next_run": len(session.runs) + 1,
        "parent_session_id": placed.parent,
    }


def _run_rows(session: ImportedSession, owner: str | None, profiles: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    free = True
    for number, run in enumerate(session.runs, start=1):
        pending = run.status is RunStatus.PENDING
        yield asdict(run) | {
            "session_id": session.session_id,
            "session_seq": number,
            "owner": owner,
            "type": run.type.value,
            "execution_mode": run.execution_mode.value,
            "demands": run.demands.as_json(),
            "profile_id": profiles[run.demands.hash],
            "status": run.status.value,
            "ready": pending and free,
            "priority": _PRIORITY if pending else 0,
        }
        free = free and not pending
