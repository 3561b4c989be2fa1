"""Write sessions that come from a file, with their runs and events and the positions of these, in one transaction."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain
from typing import Any, Final

from sqlalchemy import Connection, text

from models.claims.matching import ensure_profiles
from models.core.statuses import RunStatus
from models.feed.sequence import PASS_EVENTS, sequence_feed
from models.schema.columns import array_rows
from models.schema.sql import sql
from models.schema.tables import runs, sessions
from models.state.events_outbox import encode, session_updated
from models.state.sessions import Session
from models.transfer.convert import ImportedEvent, ImportedRun, ImportedSession

# Seconds for which a pending run waits for a runner that satisfies it: runners are moved after the import.
NO_MATCH_SECONDS: Final = 86_400
# Pending runs are older than every run submitted here, and their ids do not say so.
_PRIORITY: Final = 1
_IMPORTED: Final = "imported"
# Milliseconds: a session of a million events is inserted by one statement; reading the file may pause, but not once
# rows are locked.
_LONGEST_STATEMENT: Final = 600_000
_PAUSE_UNLOCKED: Final = 600_000
_PAUSE_LOCKED: Final = 5_000
# Bounds of a statement that stages events.
_STAGED_ROWS: Final = 1_000
_STAGED_CHARACTERS: Final = 4 << 20

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

_INSERT_BLUEPRINTS = text("""
    INSERT INTO run_blueprints (run_id, blueprint)
    SELECT b.run_id, CAST(b.blueprint AS json)
    FROM unnest(CAST(:run_ids AS text[]), CAST(:blueprints AS text[])) AS b(run_id, blueprint)
    WHERE b.blueprint IS NOT NULL
    ORDER BY b.run_id
    ON CONFLICT (run_id) DO UPDATE SET blueprint = excluded.blueprint
""")

_LIMIT = text("""
    SELECT set_config('statement_timeout',
                      coalesce(CAST(:statement AS text), current_setting('statement_timeout')), true),
        set_config('idle_in_transaction_session_timeout', CAST(:pause AS text), true)
""")

# A group of another import may take longer than a statement may take or wait for a lock.
_LIMITS = text("SELECT current_setting('lock_timeout') AS lock, current_setting('statement_timeout') AS statement")
_SET_LIMITS = text("SELECT set_config('lock_timeout', :lock, true), set_config('statement_timeout', :statement, true)")
_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended('coordinator.import', 0))")

_HEAD = text("SELECT last_pos FROM feed_head FOR UPDATE")

# With positions at once: clients see a session's history when it is committed, and no event is written twice.
_NUMBER = text("""
    INSERT INTO events (feed_pos, kind, event_type, session_id, run_id, owner, frame)
    SELECT :head + e.place, e.kind, e.event_type, e.session_id, e.run_id, CAST(:owner AS text), CAST(e.frame AS json)
    FROM imported_events e ORDER BY e.place
""")

_MOVE_HEAD = text("UPDATE feed_head SET last_pos = :last_pos")


@dataclass(frozen=True, slots=True)
class PlacedSession:
    """Session to write, with its place in the tree: ``parent`` is None for a root. ``events`` are read once."""

    session: ImportedSession
    events: Iterable[ImportedEvent]
    incarnation: str
    parent: str | None
    depth: int


def allow_pauses(conn: Connection) -> None:
    """Let the transaction wait for the file until it locks something."""
    conn.execute(_LIMIT, {"statement": None, "pause": str(_PAUSE_UNLOCKED)})


def wait_for_other_imports(conn: Connection) -> None:
    """Take the lock of imports until the end of the transaction, however long the groups before it take."""
    limits = conn.execute(_LIMITS).mappings().one()
    conn.execute(_SET_LIMITS, {"lock": "0", "statement": "0"})
    conn.execute(_ONE_AT_A_TIME)
    conn.execute(_SET_LIMITS, dict(limits))


def write_sessions(conn: Connection, placed: Sequence[PlacedSession], owner: str | None) -> int:
    """Write the sessions with their runs and events; return the number of the events.

    Nothing is locked while events are read. The feed is locked last, from the numbering to the commit.
    """
    conn.execute(_STAGE)
    staged = _stage(conn, chain.from_iterable(_history(each, owner) for each in placed))
    conn.execute(_LIMIT, {"statement": str(_LONGEST_STATEMENT), "pause": str(_PAUSE_LOCKED)})
    moved = [run for each in placed for run in each.session.runs]
    profiles = ensure_profiles(conn, [run.demands for run in moved])
    conn.execute(_INSERT_SESSIONS, _columns([_session_row(each, owner) for each in placed], _OF_SESSION))
    if moved:
        rows = [row for each in placed for row in _run_rows(each.session, owner, profiles)]
        conn.execute(_INSERT_RUNS, _columns(rows, (*_OF_RUN, "completed_at")) | {"no_match": NO_MATCH_SECONDS})
        blueprints = [run.resolved_agent_blueprint for run in moved]
        conn.execute(_INSERT_BLUEPRINTS, {"run_ids": [run.run_id for run in moved], "blueprints": blueprints})
    # What was committed before comes before it.
    while sequence_feed(conn) >= PASS_EVENTS:
        pass
    head = conn.execute(_HEAD).scalar_one()
    conn.execute(_NUMBER, {"head": head, "owner": owner})
    conn.execute(_MOVE_HEAD, {"last_pos": head + staged})
    return staged - len(placed) - sum(run.status is RunStatus.PENDING for run in moved)


_FeedRow = tuple[str, str | None, str, str | None, str]


def _history(placed: PlacedSession, owner: str | None) -> Iterator[_FeedRow]:
    """Return the rows of a session on the feed: that it is there, its events, and the runs that still have to run."""
    session = placed.session
    values: dict[str, Any] = {name.name: getattr(session, name.name, None) for name in fields(Session)}
    values |= {"parent_session_id": placed.parent, "owner": owner, "depth": placed.depth}
    created = session_updated(Session(**values), "session_created")
    yield created.kind, None, session.session_id, None, created.frame
    for event in placed.events:
        yield "event", event.event_type, session.session_id, event.run_id, event.frame
    for run in session.runs:
        if run.status is RunStatus.PENDING:
            yield "run_updated", None, session.session_id, run.run_id, _pending_frame(session.session_id, run)


def _pending_frame(session_id: str, run: ImportedRun) -> str:
    # With a reason it is no submission, neither for the timeline nor for the counts.
    frame = {"run_id": run.run_id, "session_id": session_id, "status": run.status, "runner_id": None, "attempt": 0}
    return encode({"run": frame | {"error": None, "reason": _IMPORTED}})


def _stage(conn: Connection, rows: Iterable[_FeedRow]) -> int:
    staged = 0
    for batch in _batches(rows):
        kinds, event_types, session_ids, run_ids, frames = (list(column) for column in zip(*batch, strict=True))
        values = {
            "before": staged,
            "kinds": kinds,
            "event_types": event_types,
            "session_ids": session_ids,
            "run_ids": run_ids,
            "frames": frames,
        }
        conn.execute(_FILL, values)
        staged += len(batch)
    return staged


def _batches(rows: Iterable[_FeedRow]) -> Iterator[list[_FeedRow]]:
    batch: list[_FeedRow] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row[-1])
        if len(batch) == _STAGED_ROWS or size >= _STAGED_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in names}


def _session_row(placed: PlacedSession, owner: str | None) -> dict[str, Any]:
    session = placed.session
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
