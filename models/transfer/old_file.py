"""Read the SQLite file of the coordinator that this one replaces, in one transaction of SQLite and page by page."""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, Final

from models.core.storable_text import storable
from models.transfer.faults import Reason, Refusal, shown

# Bounds of a group of sessions, which is stored in one transaction; a larger session is a group of its own.
MOST_SESSIONS: Final = 500
MOST_EVENTS: Final = 4_000
MOST_BYTES: Final = 8 << 20

SESSION: Final = (
    "session_id",
    "status",
    "created_at",
    "project_dir",
    "agent_name",
    "last_resumed_at",
    "parent_session_id",
    "executor_session_id",
    "executor_profile",
    "hostname",
)
RUN: Final = (
    "run_id",
    "type",
    "agent_name",
    "parameters",
    "project_dir",
    "parent_session_id",
    "execution_mode",
    "demands",
    "status",
    "runner_id",
    "error",
    "created_at",
    "claimed_at",
    "started_at",
    "completed_at",
    "scope",
    "resolved_agent_blueprint",
)
EVENT: Final = (
    "id",
    "event_type",
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
# Columns that only files have that a newer version has opened.
_NEWER: Final = frozenset({"scope", "resolved_agent_blueprint", "result_text", "result_data"})
_KEYS: Final = {"sessions": (), "runs": ("session_id",), "events": ("session_id",)}
_COLUMNS: Final = {"sessions": SESSION, "runs": RUN, "events": EVENT}
_MAGIC: Final = b"SQLite format 3\0"
_IS_WAL: Final = b"\2\2"

# Parents come before their children, so that a child knows of its own; sessions below themselves keep no depth.
_PLAN: Final = (
    """
    CREATE TEMP TABLE plan AS
    SELECT s.rowid AS place, s.session_id, s.parent_session_id, CASE WHEN s.parent_session_id IS NULL OR NOT EXISTS (
        SELECT 1 FROM main.sessions p WHERE p.session_id = s.parent_session_id) THEN 0 END AS depth
    FROM main.sessions s
    """,
    "CREATE INDEX temp.plan_parent ON plan (parent_session_id)",
    "CREATE INDEX temp.plan_depth ON plan (depth)",
)
_NEXT_LEVEL: Final = """
    UPDATE plan SET depth = :depth
    WHERE depth IS NULL AND parent_session_id IN (SELECT session_id FROM plan WHERE depth = :depth - 1)
"""
# By the row of the session: an id that is not UTF-8 cannot be given back to SQLite.
_OWN: Final = "(SELECT s.session_id FROM main.sessions s WHERE s.rowid = ?)"
_SESSIONS: Final = Template("""
    SELECT plan.depth, plan.place, $columns FROM temp.plan JOIN main.sessions t ON t.rowid = plan.place
    ORDER BY plan.depth IS NULL, plan.depth, t.created_at, t.session_id
""")
_RUNS: Final = Template("SELECT $columns FROM main.runs t WHERE t.session_id = $own ORDER BY t.created_at, t.run_id")
_EVENTS: Final = Template("SELECT $columns FROM main.events t WHERE t.session_id = $own ORDER BY t.timestamp, t.id")
_STRAYS: Final = Template("""
    SELECT t.session_id, count(*) FROM main.$table t GROUP BY t.session_id
    HAVING NOT EXISTS (SELECT 1 FROM main.sessions s WHERE s.session_id = t.session_id)
""")

Values = dict[str, Any]


class UnreadableFile(Exception):
    pass


@dataclass(frozen=True, slots=True)
class OldSession:
    """Session as the file has it. ``digest`` is of its row, its runs and its events.

    ``events`` is None when they are too many to be held: read them with ``events_of``. ``depth`` is None for a session
    that is below itself.
    """

    depth: int | None
    place: int
    row: Values
    runs: list[Values]
    events: list[Values] | None
    events_count: int
    size: int
    digest: str


@dataclass(slots=True)
class OldGroup:
    sessions: list[OldSession] = field(default_factory=list)
    events: int = 0
    size: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.sessions) >= MOST_SESSIONS or self.events >= MOST_EVENTS or self.size >= MOST_BYTES


class OldFile:
    """File that is open; everything is read in one transaction, and so of one moment."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self.name = name
        self._connection = connection
        self._queries = {name: self._selected(name, columns) for name, columns in _COLUMNS.items()}
        for statement in _PLAN:
            connection.execute(statement)
        depth = 1
        while connection.execute(_NEXT_LEVEL, {"depth": depth}).rowcount:
            depth += 1

    def groups(self) -> Iterator[OldGroup]:
        """Return all sessions, parents first, in groups that fit into memory."""
        group = OldGroup()
        for session in self._sessions():
            if session.events is None:
                if group.sessions:
                    yield group
                    group = OldGroup()
                yield OldGroup([session])
                continue
            group.sessions.append(session)
            group.events += session.events_count
            group.size += session.size
            if group.is_full:
                yield group
                group = OldGroup()
        if group.sessions:
            yield group

    def events_of(self, session: OldSession) -> Iterator[Values]:
        if session.events is not None:
            yield from session.events
            return
        for row in self._events(session.place):
            yield dict(zip(EVENT, row, strict=True))

    def strays(self) -> Iterator[Refusal]:
        """Return the runs and events that belong to no session of the file."""
        for table, what in (("runs", "run"), ("events", "event")):
            for session_id, rows in self._connection.execute(_STRAYS.substitute(table=table)):
                yield Refusal(
                    Reason.NO_SESSION, what, shown(session_id), f"{rows} of session {shown(session_id)}", rows
                )

    def _sessions(self) -> Iterator[OldSession]:
        for depth, place, *row in self._connection.execute(_SESSIONS.substitute(columns=self._queries["sessions"])):
            query = _RUNS.substitute(columns=self._queries["runs"], own=_OWN)
            runs = self._connection.execute(query, (place,)).fetchall()
            digest = hashlib.sha256()
            size = _add(digest, row) + sum(_add(digest, _known_before(run)) for run in runs)
            events: list[Values] | None = []
            count = 0
            for event in self._events(place):
                count += 1
                size += _add(digest, event)
                if events is not None:
                    events.append(dict(zip(EVENT, event, strict=True)))
                    if count > MOST_EVENTS or size > MOST_BYTES:
                        events = None
            yield OldSession(
                depth,
                place,
                dict(zip(SESSION, row, strict=True)),
                [dict(zip(RUN, run, strict=True)) for run in runs],
                events,
                count,
                size,
                digest.hexdigest(),
            )

    def _events(self, place: int) -> sqlite3.Cursor:
        return self._connection.execute(_EVENTS.substitute(columns=self._queries["events"], own=_OWN), (place,))

    def _selected(self, table: str, wanted: Sequence[str]) -> str:
        """Return the columns to select: NULL for those that older files lack."""
        found = {row[1] for row in self._connection.execute(f"PRAGMA main.table_info({table})")}
        if not found:
            raise UnreadableFile(f"has no table {table}")
        missing = sorted({*wanted, *_KEYS[table]} - found - _NEWER)
        if missing:
            raise UnreadableFile(f"has no column {missing[0]} in table {table}")
        return ", ".join(f"t.{name}" if name in found else f"NULL AS {name}" for name in wanted)


@contextmanager
def open_old_file(path: Path) -> Iterator[OldFile]:
    """Open the file for reading, without a change to it or to its directory.

    Raises UnreadableFile, also when it is read. A program that has it open may go on: in WAL mode it may write, in
    other modes its writes wait until the file is closed here.
    """
    try:
        with closing(sqlite3.connect(_address(path), uri=True, isolation_level=None)) as connection:
            connection.text_factory = _text
            connection.execute("BEGIN")
            yield OldFile(connection, storable(path.name))
    except (sqlite3.Error, OSError) as fault:
        raise UnreadableFile(f"cannot be read: {fault}{_hint(path)}") from fault


def _address(path: Path) -> str:
    # SQLite follows links and looks for the log beside the file itself.
    path = path.resolve()
    with path.open("rb") as file:
        header = file.read(20)
    if not header.startswith(_MAGIC):
        raise UnreadableFile("is no SQLite database")
    # The last program that closes a file in WAL mode removes the log: without one the file is not in use, and a
    # connection that may not write could not create the log that it needs.
    is_idle = header[18:20] == _IS_WAL and not Path(f"{path}-wal").exists()
    return f"{path.as_uri()}?{'immutable=1' if is_idle else 'mode=ro'}"


def _hint(path: Path) -> str:
    if not Path(f"{path.resolve()}-journal").exists():
        return ""
    return "; a write was cut off: open the file once with the coordinator that it belongs to, or with sqlite3"


def _text(raw: bytes) -> str:
    # What is not UTF-8 becomes surrogates, which the checks of values find.
    return raw.decode(errors="surrogateescape")


def _known_before(run: Sequence[object]) -> Sequence[object]:
    # Versions that did not read blueprints have given digests of runs without them.
    return run[:-1] if run[-1] is None else run


def _add(digest: Any, row: Sequence[object]) -> int:
    written = repr(tuple(row)).encode(errors="backslashreplace")
    digest.update(written)
    return len(written)
