import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sqlalchemy import Connection, text

from models.callbacks.prompts import ChildResult, callback_prompt
from models.claims.matching import Demands, ensure_profiles
from models.core.callers import ADMIN
from models.core.errors import CoordinatorError
from models.core.ids import new_id
from models.core.limits import DEFAULT_LIMITS, Limits
from models.core.statuses import RunType, SessionStatus
from models.runs.submission import NewRun, RunAgent, resume_demands
from models.runs.submit import agents_by_name, submit_runs
from models.schema.sql import sql
from models.state.locked_rows import LockedSession
from models.state.locks import read_sessions_unlocked
from models.state.process_places import with_process_places
from models.state.try_locks import try_lock_runs

# Bound the results of a run in number and in stored bytes, and the bytes that one pass holds in memory.
MOST_RESULTS: Final = 1000
RUN_BYTES: Final = 8 << 20
PASS_BYTES: Final = 32 << 20

FREE: Final = frozenset({SessionStatus.IDLE, SessionStatus.FINISHED})


@dataclass(frozen=True, slots=True)
class Delivered:
    """Resume runs of one pass, by parent; ``again``: more parents may be due at once."""

    runs: dict[str, str] = field(default_factory=dict)
    again: bool = False


@dataclass(frozen=True, slots=True)
class _Parent:
    session_id: str
    hostname: str | None
    executor_profile: str | None
    agent_name: str | None
    next_run: int
    grandparent: str | None
    execution_mode: str
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class WaitingResult:
    """Result that waits for its parent; one that is not ``due`` goes along with one that is."""

    child_run_id: str
    parent_session_id: str
    body_bytes: int
    due: bool
    foreign_owner: bool


# Retry results returned by a resume that never started after another child ends or a later run starts. LIMIT keeps it
# at one look per session; joined, all sessions would be read.
_DUE = sql("""
    WITH waiting AS MATERIALIZED (
        SELECT c.parent_session_id, c.parent_incarnation, min(coalesce(c.returned_at, '-infinity')) AS since
        FROM child_results c WHERE c.delivered_in IS NULL
        GROUP BY c.parent_session_id, c.parent_incarnation
    )
    SELECT s.session_id FROM waiting w
    CROSS JOIN LATERAL (
        SELECT p.session_id, p.status, p.incarnation FROM sessions p WHERE p.session_id = w.parent_session_id LIMIT 1
    ) s
    WHERE s.incarnation = w.parent_incarnation AND s.status IN $FREE
      AND (w.since = '-infinity'
           OR EXISTS (SELECT 1 FROM runs r WHERE r.session_id = s.session_id AND r.started_at > w.since))
    LIMIT :most
""")

# Continue the execution mode, the parent and the trace of the session's last run.
_PARENTS = text("""
    SELECT s.session_id, s.hostname, s.executor_profile, s.agent_name, s.next_run, g.session_id AS grandparent,
        coalesce(last.execution_mode, 'sync') AS execution_mode, last.traceparent
    FROM sessions s
    LEFT JOIN LATERAL (
        SELECT r.parent_session_id, r.execution_mode, r.created_at, r.traceparent FROM runs r
        WHERE r.session_id = s.session_id ORDER BY r.session_seq DESC LIMIT 1
    ) last ON true
    LEFT JOIN sessions g ON g.session_id = last.parent_session_id AND g.created_at <= last.created_at
        AND g.owner IS NOT DISTINCT FROM s.owner
    WHERE s.session_id = ANY(CAST(:parents AS text[]))
""")

_LOCK_GRANDPARENTS = text("""
    SELECT session_id FROM sessions WHERE session_id = ANY(CAST(:sessions AS text[]))
    ORDER BY session_id FOR UPDATE SKIP LOCKED
""")

_WAITING = text("""
    SELECT w.child_run_id, w.parent_session_id, w.body_bytes, w.due, w.foreign_owner FROM sessions s
    CROSS JOIN LATERAL (
        SELECT c.child_run_id, c.parent_session_id, c.body_bytes, c.created_at,
            c.returned_at IS NULL OR EXISTS (
                SELECT 1 FROM runs r WHERE r.session_id = s.session_id AND r.started_at > c.returned_at) AS due,
            EXISTS (SELECT 1 FROM runs k WHERE k.run_id = c.child_run_id AND k.owner IS DISTINCT FROM s.owner)
                AS foreign_owner
        FROM child_results c
        WHERE c.parent_session_id = s.session_id AND c.parent_incarnation = s.incarnation AND c.delivered_in IS NULL
        ORDER BY c.created_at, c.child_run_id LIMIT :most
    ) w
    WHERE s.session_id = ANY(CAST(:parents AS text[]))
    ORDER BY w.parent_session_id, w.created_at, w.child_run_id
""")

_BODIES = text("""
    SELECT child_run_id, child_session_id, outcome, CAST(body AS text) AS body FROM child_results
    WHERE child_run_id = ANY(CAST(:children AS text[]))
""")

_DROP = text("""
    DELETE FROM child_results WHERE child_run_id = ANY(CAST(:children AS text[])) AND delivered_in IS NULL
""")

_DELIVERED = text("""
    UPDATE child_results c SET delivered_in = d.run_id, returned_at = NULL
    FROM unnest(CAST(:children AS text[]), CAST(:runs AS text[])) AS d(child_run_id, run_id)
    WHERE c.child_run_id = d.child_run_id AND c.delivered_in IS NULL
""")


def deliver_results(
    conn: Connection,
    *,
    limits: Limits = DEFAULT_LIMITS,
    at_most: int = 100,
) -> Delivered:
    """Resume up to ``at_most`` parents that are idle or finished with all results that wait for them, one run each.

    A result is delivered in the transaction that inserts the run which carries it, hence once, however many processes
    do this at the same time. A run carries up to 1,000 results of 8 MiB together, at least one; the rest goes with the
    next run. Locked parents are left to the next pass. Results of another owner's children, which the version before
    this one kept, are dropped.
    """
    due = conn.execute(_DUE, {"most": at_most}).scalars().all()
    if not due:
        return Delivered()
    read = _read_parents(conn, due)
    agents = agents_by_name(conn, {parent.agent_name for parent in read.values() if parent.agent_name is not None})
    # Do it before any session is locked (ARCHITECTURE, Lock order); a parent whose affinity changes meanwhile is left
    # out.
    ensure_profiles(conn, [_demands(parent, agents) for parent in read.values()])
    parents = _lock_parents(conn, read)
    rows = conn.execute(_WAITING, {"parents": list(parents), "most": MOST_RESULTS}) if parents else ()
    waiting = [WaitingResult(*row) for row in rows]
    foreign = [result.child_run_id for result in waiting if result.foreign_owner]
    if foreign:
        conn.execute(_DROP, {"children": foreign})
    chosen, left = choose(result for result in waiting if not result.foreign_owner)
    runs = _submit(conn, {parent_id: parents[parent_id] for parent_id in chosen}, _prompts(conn, chosen), limits)
    pairs = [
        (child, runs[parent_id]) for parent_id, children in chosen.items() if parent_id in runs for child in children
    ]
    conn.execute(_DELIVERED, {"children": [child for child, _ in pairs], "runs": [run_id for _, run_id in pairs]})
    # Without progress leave locked parents to the next tick; asking again at once would loop.
    return Delivered(runs, again=bool(runs) and (left or len(due) >= at_most))


def _read_parents(conn: Connection, session_ids: Collection[str]) -> dict[str, _Parent]:
    read = {row.session_id: _Parent(*row) for row in conn.execute(_PARENTS, {"parents": session_ids})}
    unbound = [name for name, parent in read.items() if parent.hostname is None and parent.executor_profile is None]
    placed = with_process_places(conn, read_sessions_unlocked(conn, unbound))
    return read | {
        name: replace(read[name], hostname=session.hostname, executor_profile=session.executor_profile)
        for name, session in placed.items()
    }


def _lock_parents(conn: Connection, read: Mapping[str, _Parent]) -> dict[str, _Parent]:
    locked = try_lock_runs(conn, session_ids=read)
    free = {
        session_id: read[session_id]
        for session_id, session in with_process_places(conn, locked.sessions).items()
        if session.status in FREE
        and not locked.unfinished_of(session_id)
        and _affinity(session) == _affinity(read[session_id])
    }
    above = {parent.grandparent for parent in free.values() if parent.grandparent is not None}
    locked_above = set(conn.execute(_LOCK_GRANDPARENTS, {"sessions": sorted(above)}).scalars()) if above else set()
    return {
        session_id: parent
        for session_id, parent in free.items()
        if parent.grandparent is None or parent.grandparent in locked_above
    }


def _demands(parent: _Parent, agents: Mapping[str, RunAgent | None]) -> Demands:
    agent = agents.get(parent.agent_name or "")
    return resume_demands(parent.hostname, parent.executor_profile, agent=agent)


def _affinity(session: LockedSession | _Parent) -> tuple[str | None, str | None, str | None, int]:
    return session.hostname, session.executor_profile, session.agent_name, session.next_run


def choose(waiting: Iterable[WaitingResult]) -> tuple[dict[str, list[str]], bool]:
    """Return the results to deliver now, by parent in their order, and whether a parent is left to the next pass.

    ``waiting`` is sorted by parent and age; a parent without a due result gets nothing.
    """
    by_parent: dict[str, list[WaitingResult]] = {}
    for result in waiting:
        by_parent.setdefault(result.parent_session_id, []).append(result)
    chosen: dict[str, list[str]] = {}
    total = 0
    for parent, results in by_parent.items():
        if not any(result.due for result in results):
            continue
        if total >= PASS_BYTES:
            return chosen, True
        size = 0
        chosen[parent] = []
        for result in results:
            if chosen[parent] and size + result.body_bytes > RUN_BYTES:
                break
            chosen[parent].append(result.child_run_id)
            size += result.body_bytes
        total += size
    return chosen, False


def _prompts(conn: Connection, chosen: Mapping[str, Collection[str]]) -> dict[str, str]:
    children = [child for children in chosen.values() for child in children]
    rows = conn.execute(_BODIES, {"children": children}).all() if children else []
    results = {row.child_run_id: ChildResult(row.child_session_id, row.outcome, row.body) for row in rows}
    return {
        parent_id: callback_prompt([results[child] for child in children]) for parent_id, children in chosen.items()
    }


def _submit(
    conn: Connection,
    parents: Mapping[str, _Parent],
    prompts: Mapping[str, str],
    limits: Limits,
) -> dict[str, str]:
    items = [_resume(parent, prompts[parent_id], limits) for parent_id, parent in parents.items()]
    refused = _refused(conn, items, limits)
    # Drop the parent of a session that has become its own ancestor by a resume of one above it.
    without_parent = [replace(item, parent_session_id=None) for item in refused]
    failed = {item.run_id for item in _refused(conn, without_parent, limits)}
    return {item.own_session: item.run_id for item in items if item.run_id not in failed}


def _refused(conn: Connection, items: Sequence[NewRun], limits: Limits) -> list[NewRun]:
    results = submit_runs(conn, items, max_depth=limits.max_depth) if items else []
    return [item for item, result in zip(items, results, strict=True) if isinstance(result, CoordinatorError)]


def _resume(parent: _Parent, prompt: str, limits: Limits) -> NewRun:
    return NewRun(
        run_id=new_id("run_"),
        session_id=parent.session_id,
        new_session_id=parent.session_id,
        caller=ADMIN,
        type=RunType.RESUME,
        parameters=json.dumps({"prompt": prompt}, ensure_ascii=False, separators=(",", ":")),
        parent_session_id=parent.grandparent,
        execution_mode=parent.execution_mode,
        traceparent=parent.traceparent,
        no_match_timeout_seconds=limits.no_match_timeout,
        callback=True,
    )
