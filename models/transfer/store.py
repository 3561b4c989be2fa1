"""Decide on a group of sessions of a file, and store those that can be stored."""

from collections import ChainMap, Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, text

from models.auth.audit import Act, AuditedAct, record_acts
from models.core.ids import uuid7
from models.transfer.convert import Bounds, ImportedEvent, ImportedSession, convert_events, convert_session
from models.transfer.faults import Reason, Refusal, RowFault, shown
from models.transfer.old_file import OldFile, OldGroup, OldSession
from models.transfer.values import identifier
from models.transfer.write import PlacedSession, allow_pauses, wait_for_other_imports, write_sessions

# Begin of the incarnation of an imported session; the digest of the file's rows follows.
_MARK: Final = "import:"

_KNOWN = text("""
    SELECT session_id, incarnation, depth FROM sessions WHERE session_id = ANY(CAST(:sessions AS text[]))
""")

_KNOWN_RUNS = text("SELECT run_id FROM runs WHERE run_id = ANY(CAST(:runs AS text[]))")


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
class _Known:
    sessions: Mapping[str, tuple[str, int]]
    runs: Collection[str]


def import_group(
    conn: Connection,
    file: OldFile,
    group: OldGroup,
    owner: str | None,
    bounds: Bounds,
    *,
    by: str | None = None,
    planned: dict[str, int] | None = None,
) -> Imported:
    """Store each session of the group whole, or refuse it with the reason. Safe to repeat, also concurrently.

    A session that was stored before is recognized by the digest in its incarnation. Ended runs write no event: they did
    not end now, and curves do not count them. Raises RowFault for an event of a session that does not fit into memory;
    roll the transaction back then, nothing of the group is left. With ``by`` the import is recorded as an act of that
    name, if a session is stored.

    With ``planned`` it is a dry run, which writes nothing: these are the depths of the sessions that groups before this
    one would have stored, and those of this group are added.
    """
    allow_pauses(conn)
    if planned is None:
        wait_for_other_imports(conn)
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
    placed = _place(candidates, known, planned or {}, file, bounds)
    for each in placed:
        result.sessions += 1
        result.runs += len(each.session.runs)
        result.changes.update(each.session.changes)
        if each.parent is None and each.session.parent_session_id is not None:
            result.changes["sessions without their parents, which were not imported"] += 1
    if planned is not None:
        result.events = sum(1 for each in placed for _ in each.events)
        planned.update((each.session.session_id, each.depth) for each in placed)
    elif placed:
        result.events = write_sessions(conn, placed, owner)
        if by is not None:
            record_acts(conn, [AuditedAct(Act.HISTORY_IMPORTED, by, file.name, owner)])
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


def _place(
    candidates: Sequence[_Candidate], known: _Known, planned: dict[str, int], file: OldFile, bounds: Bounds
) -> list[PlacedSession]:
    """Return the candidates with their parents; one whose parent was not imported becomes a root."""
    stored = {
        session_id: depth
        for session_id, (incarnation, depth) in known.sessions.items()
        if incarnation.startswith(_MARK)
    }
    depths = ChainMap(stored, planned)
    placed: list[PlacedSession] = []
    for candidate in candidates:
        session = candidate.session
        named = session.parent_session_id
        parent = named if isinstance(named, str) and named in depths else None
        depth = 0 if parent is None else depths[parent] + 1
        depths[session.session_id] = depth
        incarnation = f"{_MARK}{candidate.old.digest}:{uuid7()}"
        placed.append(PlacedSession(session, _events_of(candidate, file, bounds), incarnation, parent, depth))
    return placed


def _events_of(candidate: _Candidate, file: OldFile, bounds: Bounds) -> Iterable[ImportedEvent]:
    if candidate.events is not None:
        return candidate.events
    return convert_events(candidate.session, file.events_of(candidate.old), bounds)
