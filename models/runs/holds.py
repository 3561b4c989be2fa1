"""Hold runs: they do not become claimable until the hold is released; what runners have in hand goes on.

A hold of one run is applied in its own transaction. One of several runs is a row that every verb reads which makes runs
ready; ``settle_holds`` applies it to those that wait already, once the verbs that did not see it have ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Row, text

from models.auth.audit import Act, AuditedAct, audited_act, record_acts
from models.claims.matching import NO_DEMANDS, Demands
from models.core.callers import UNNAMED, Caller
from models.core.errors import CoordinatorError, InvalidTransition, NotFound, TooManyHolds
from models.core.rounds import in_rounds
from models.core.statuses import TERMINAL, RunStatus
from models.schema.sql import sql
from models.state.holds import ANY_HOLD, ANY_SELECTOR, IS_HELD_OF_R
from models.state.locked_rows import LockedRun
from models.state.locks import LockedRows, lock_runs
from models.state.session_status import IS_EARLIER, IS_OPEN_STOP, SessionChange
from models.state.transitions import update_status_and_record
from models.state.visibility import find_visible, owner_filter

MOST_SELECTORS: Final = 100
MOST_LISTED: Final = 1_000
MOST_SETTLED: Final = 2_000
_OF_RUN: Final = "run:"
_HELD: Final = "held"


@dataclass(frozen=True, slots=True)
class Hold:
    """Hold of one run, of an agent's runs, of those that demand all of ``demands``, or of every run."""

    name: str
    run_id: str | None
    everything: bool
    agent_name: str | None
    demands: Demands | None
    note: str | None
    held_by: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class SetHold:
    """Request to hold several runs; exactly one of ``agent_name``, ``demands`` and ``everything`` is given."""

    caller: Caller
    name: str
    agent_name: str | None = None
    demands: Demands | None = None
    everything: bool = False
    note: str | None = None


@dataclass(frozen=True, slots=True)
class RemoveHold:
    caller: Caller
    name: str


@dataclass(frozen=True, slots=True)
class HoldRun:
    """Request to hold one run, or to release it."""

    caller: Caller
    run_id: str
    held: bool = True
    note: str | None = None


@dataclass(frozen=True, slots=True)
class RunHeld:
    run_id: str
    session_id: str
    status: str
    held: bool
    changed: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """Numbers of runs that are not ready any more, and of sessions whose next run was due; ``more`` may be left."""

    held: int
    released: int
    more: bool


HoldResult: TypeAlias = Hold | CoordinatorError
RunHoldResult: TypeAlias = RunHeld | CoordinatorError

_COLUMNS: Final = (
    "name, run_id, everything, agent_name, hostname, project_dir, executor_profile, executor_type, tags, note, "
    "held_by, created_at"
)

# Count under a lock that two requests cannot have at a time.
_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended('coordinator.holds', 0))")
_OTHERS = text("SELECT count(*) FROM holds WHERE run_id IS NULL AND name <> :name")
_SET = sql(
    """
    INSERT INTO holds AS h (name, everything, agent_name, hostname, project_dir, executor_profile, executor_type, tags,
                            note, held_by)
    VALUES (:name, :everything, :agent_name, :hostname, :project_dir, :executor_profile, :executor_type,
            CAST(:tags AS text[]), :note, :held_by)
    ON CONFLICT (name) DO UPDATE
    SET everything = excluded.everything, agent_name = excluded.agent_name, hostname = excluded.hostname,
        project_dir = excluded.project_dir, executor_profile = excluded.executor_profile,
        executor_type = excluded.executor_type, tags = excluded.tags, note = excluded.note,
        held_by = excluded.held_by, created_at = clock_timestamp()
    WHERE (h.everything, h.agent_name, h.hostname, h.project_dir, h.executor_profile, h.executor_type, h.tags, h.note)
        IS DISTINCT FROM (excluded.everything, excluded.agent_name, excluded.hostname, excluded.project_dir,
                          excluded.executor_profile, excluded.executor_type, excluded.tags, excluded.note)
    RETURNING name
    """
)
_READ = sql("SELECT $columns FROM holds WHERE name = :name", columns=_COLUMNS)
_REMOVE = sql("DELETE FROM holds WHERE name = :name AND run_id IS NULL RETURNING $columns", columns=_COLUMNS)

_HOLD_RUNS = text("""
    INSERT INTO holds (name, run_id, note, held_by)
    SELECT :prefix || g.run_id, g.run_id, g.note, g.held_by
    FROM unnest(CAST(:run_ids AS text[]), CAST(:notes AS text[]), CAST(:held_by AS text[])) AS g(run_id, note, held_by)
    ORDER BY g.run_id
    ON CONFLICT (name) DO NOTHING
    RETURNING run_id
""")
# Write the row also if it was not ready: a statement that would make it ready drops a row that has changed.
_UNREADY = sql("""
    UPDATE runs r SET ready = false, match_deadline_at = NULL
    WHERE r.run_id = ANY(CAST(:run_ids AS text[])) AND r.status = $PENDING
""")
_RELEASE_RUNS = text("DELETE FROM holds WHERE run_id = ANY(CAST(:run_ids AS text[])) RETURNING run_id")

_ANY = sql("SELECT $any_hold", any_hold=ANY_HOLD)
_ANY_SELECTOR = sql("SELECT $any_selector", any_selector=ANY_SELECTOR)

# Lock runs in the order of all transactions; one that is being claimed is looked at again once it is free.
_TAKE_BACK_TEMPLATE: Final = """
    WITH found AS MATERIALIZED (
        SELECT r.run_id FROM runs r WHERE r.status = $PENDING AND r.ready AND $is_held
        ORDER BY r.run_id LIMIT :most FOR NO KEY UPDATE OF r $skip_locked
    )
    UPDATE runs r SET ready = false, match_deadline_at = NULL
    WHERE r.run_id = ANY(ARRAY(SELECT run_id FROM found)) AND r.status = $PENDING AND r.ready
    RETURNING r.run_id
"""
_TAKE_BACK = sql(_TAKE_BACK_TEMPLATE, is_held=IS_HELD_OF_R, skip_locked="")
_TRY_TAKE_BACK = sql(_TAKE_BACK_TEMPLATE, is_held=IS_HELD_OF_R, skip_locked="SKIP LOCKED")
# Begin at the holds while each names a run: there are few, and ready runs may be many.
_TRY_TAKE_BACK_NAMED = sql("""
    WITH found AS MATERIALIZED (
        SELECT r.run_id FROM holds h JOIN runs r ON r.run_id = h.run_id
        WHERE h.run_id IS NOT NULL AND r.status = $PENDING AND r.ready
        ORDER BY r.run_id LIMIT :most FOR NO KEY UPDATE OF r SKIP LOCKED
    )
    UPDATE runs r SET ready = false, match_deadline_at = NULL
    WHERE r.run_id = ANY(ARRAY(SELECT run_id FROM found)) AND r.status = $PENDING AND r.ready
    RETURNING r.run_id
""")
_FREE = sql(
    """
    SELECT r.session_id FROM runs r
    WHERE r.status = $PENDING AND NOT r.ready AND (r.not_before IS NULL OR r.not_before <= now())
      AND NOT EXISTS (SELECT 1 FROM stop_commands c WHERE $is_open_stop)
      AND NOT EXISTS (SELECT 1 FROM runs e WHERE $is_earlier)
      AND NOT $is_held
    ORDER BY r.priority DESC, r.run_id LIMIT :most
    """,
    is_open_stop=IS_OPEN_STOP,
    is_earlier=IS_EARLIER,
    is_held=IS_HELD_OF_R,
)

_LIST = sql(
    """
    (SELECT $columns FROM holds WHERE run_id IS NULL AND CAST(:owner AS text) IS NULL ORDER BY name)
    UNION ALL
    (SELECT $columns FROM holds h WHERE h.run_id IS NOT NULL
       AND EXISTS (SELECT 1 FROM runs r WHERE r.run_id = h.run_id AND r.status IN $UNFINISHED
                   AND (CAST(:owner AS text) IS NULL OR r.owner = CAST(:owner AS text)))
     ORDER BY h.created_at DESC, h.name LIMIT :most)
    """,
    columns=_COLUMNS,
)
# Find the transactions of our processes that may have read the holds before now, as ``models.runners.drain`` does.
_OPEN = text("""
    SELECT l.virtualtransaction
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'relation' AND l.relation = CAST('holds' AS regclass) AND l.granted
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND a.application_name LIKE 'coordinator%' AND l.pid <> pg_backend_pid()
""")


def set_holds(conn: Connection, items: Sequence[SetHold]) -> list[HoldResult]:
    """Create or replace each hold; TooManyHolds beyond MOST_SELECTORS. Audited if it changes something.

    Runs that match are not made ready from the commit on, but by transactions that began before it:
    ``transactions_of_holds`` tells when none is left. Then ``settle_holds`` applies it to ready runs.
    """
    conn.execute(_ONE_AT_A_TIME)
    results: list[HoldResult] = []
    for item in items:
        if conn.execute(_OTHERS, {"name": item.name}).scalar_one() >= MOST_SELECTORS:
            results.append(TooManyHolds(MOST_SELECTORS))
            continue
        demands = item.demands or NO_DEMANDS
        values = {
            "name": item.name,
            "everything": item.everything,
            "agent_name": item.agent_name,
            "hostname": demands.hostname,
            "project_dir": demands.project_dir,
            "executor_profile": demands.executor_profile,
            "executor_type": demands.executor_type,
            "tags": sorted(set(demands.tags)),
            "note": item.note,
            "held_by": item.caller.by or UNNAMED,
        }
        if conn.execute(_SET, values).first() is not None:
            record_acts(conn, [AuditedAct(Act.HOLD_SET, item.caller.by or UNNAMED, item.name)])
        results.append(_hold(conn.execute(_READ, {"name": item.name}).one()))
    return results


def remove_holds(conn: Connection, items: Sequence[RemoveHold]) -> list[HoldResult]:
    """Remove each hold of several runs and return it; NotFound for an unknown one. Audited.

    ``settle_holds`` makes ready what is not held any more.
    """
    results: list[HoldResult] = []
    for item in items:
        row = conn.execute(_REMOVE, {"name": item.name}).one_or_none()
        if row is None:
            results.append(NotFound("hold", item.name))
            continue
        record_acts(conn, [AuditedAct(Act.HOLD_REMOVED, item.caller.by or UNNAMED, item.name)])
        results.append(_hold(row))
    return results


def settle_holds(conn: Connection, items: Sequence[int] = (MOST_SETTLED,)) -> list[Settled]:
    """Have up to so many runs agree with the holds, each item a number: held ones, or if there is none those that are
    free, in the order in which they are claimed.

    Never both in one transaction, which would lock runs out of order. Idempotent; safe at any time and beside itself.
    """
    results: list[Settled] = []
    for most in items:
        taken = len(conn.execute(_TAKE_BACK, {"most": most}).all())
        if taken:
            results.append(Settled(taken, 0, more=True))
            continue
        free = list(dict.fromkeys(conn.execute(_FREE, {"most": most}).scalars()))
        locked = lock_runs(conn, session_ids=free) if free else LockedRows()
        update_status_and_record(conn, [SessionChange(name) for name in free if name in locked.sessions])
        results.append(Settled(0, len(free), more=len(free) >= most))
    return results


def any_held(conn: Connection) -> bool:
    return conn.execute(_ANY).scalar_one() is not None


def try_take_back(conn: Connection, most: int) -> int:
    """Make up to so many ready runs unready to which holds apply, but for locked ones; return their number.

    Goes through the ready runs only while a hold of several runs is there.
    """
    any_selector = conn.execute(_ANY_SELECTOR).scalar_one() is not None
    statement = _TRY_TAKE_BACK if any_selector else _TRY_TAKE_BACK_NAMED
    return len(conn.execute(statement, {"most": most}).all())


def hold_runs(conn: Connection, items: Sequence[HoldRun]) -> list[RunHoldResult]:
    """Hold or release each run. Safe to repeat; a hold keeps its first note and time.

    One that a runner has in hand goes on, and is held if it returns to pending. InvalidTransition for the hold of a run
    that has ended; NotFound for another owner's. An admin's act on another owner's run is audited.
    """
    results: list[RunHoldResult] = [NotFound("run", item.run_id) for item in items]
    locked = lock_runs(conn, {item.run_id for item in items})
    found = {place: locked.runs[item.run_id] for place, item in enumerate(items) if item.run_id in locked.runs}
    shown = find_visible(conn, [(items[place].caller, run.session_id) for place, run in found.items()])
    visible = {place: run for place, run in found.items() if locked.shows(run.session_id, items[place].caller, shown)}
    in_order = list(visible)
    for places in in_rounds(items[place].run_id for place in in_order):
        chosen = {in_order[place]: visible[in_order[place]] for place in places}
        changed = _apply(conn, {items[place]: run for place, run in chosen.items()})
        for place, run in chosen.items():
            item = items[place]
            if item.held and run.status in TERMINAL:
                results[place] = InvalidTransition(run.run_id, run.status, _HELD)
            else:
                results[place] = RunHeld(run.run_id, run.session_id, run.status, item.held, run.run_id in changed)
    return results


def _apply(conn: Connection, chosen: dict[HoldRun, LockedRun]) -> set[str]:
    holding = [item for item, run in chosen.items() if item.held and run.status not in TERMINAL]
    releasing = [item for item in chosen if not item.held]
    changed: set[str] = set()
    if holding:
        values = {
            "prefix": _OF_RUN,
            "run_ids": [item.run_id for item in holding],
            "notes": [item.note for item in holding],
            "held_by": [item.caller.by or UNNAMED for item in holding],
        }
        changed |= set(conn.execute(_HOLD_RUNS, values).scalars())
        conn.execute(_UNREADY, {"run_ids": [item.run_id for item in holding]})
    if releasing:
        freed = set(conn.execute(_RELEASE_RUNS, {"run_ids": [item.run_id for item in releasing]}).scalars())
        waiting = {run.session_id for item, run in chosen.items() if item.run_id in freed and _waits(run)}
        update_status_and_record(conn, [SessionChange(session_id) for session_id in sorted(waiting)])
        changed |= freed
    record_acts(conn, [act for item, run in chosen.items() if item.run_id in changed for act in _acts(item, run)])
    return changed


def _waits(run: LockedRun) -> bool:
    return run.status == RunStatus.PENDING


def _acts(item: HoldRun, run: LockedRun) -> list[AuditedAct]:
    return audited_act(item.caller, Act.RUN_HELD if item.held else Act.RUN_RELEASED, item.run_id, run.owner)


def list_holds(conn: Connection, caller: Caller) -> list[Hold]:
    """Return the holds of several runs, for admins, and the newest MOST_LISTED of single runs that the caller sees."""
    rows = conn.execute(_LIST, {"owner": owner_filter(caller), "most": MOST_LISTED})
    return [_hold(row) for row in rows]


def transactions_of_holds(conn: Connection) -> frozenset[str]:
    """Return the names of the transactions of our processes that may have read the holds before this statement."""
    return frozenset(conn.execute(_OPEN).scalars())


def _hold(row: Row[Any]) -> Hold:
    is_by_demands = row.run_id is None and not row.everything and row.agent_name is None
    demands = Demands(row.hostname, row.project_dir, row.executor_profile, row.executor_type, tuple(row.tags))
    return Hold(
        row.name,
        row.run_id,
        row.everything,
        row.agent_name,
        demands if is_by_demands else None,
        row.note,
        row.held_by,
        row.created_at,
    )
