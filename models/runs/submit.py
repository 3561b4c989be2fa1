"""Submits runs: inserts the run, its session when it starts one, and their first events."""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from models.claims.matching import AUTONOMOUS, NO_DEMANDS, Demands, ensure_profiles
from models.core.errors import (
    CoordinatorError,
    KeyReused,
    NotFound,
    ParentIsDescendant,
    ParentOfAnotherOwner,
    SessionExists,
    TooDeep,
    TooManyDemands,
)
from models.core.rounds import in_rounds_of_many
from models.core.statuses import RunType
from models.runs import submit_rows
from models.runs.parents import ancestors, heights
from models.runs.submission import NewRun, Plan, Submitted
from models.state.events_outbox import EventRow, encode, record_events, session_updated
from models.state.locked_rows import LockedSession
from models.state.locks import lock_sessions, read_sessions_unlocked
from models.state.session_status import SessionChange, update_session_status
from models.state.sessions import Session
from models.state.transitions import sessions_updated
from models.state.visibility import Visible, can_view, find_visible


@dataclass(slots=True)
class LockedState:
    """Locked rows on which submissions are decided, by id: ``created`` new sessions, ``locked`` others and parents.

    ``ancestors`` of parents, themselves included; ``heights``: levels of children below sessions that get a new parent.
    """

    created: dict[str, Session]
    locked: dict[str, LockedSession]
    ancestors: dict[str, set[str]]
    heights: dict[str, int]
    visible: Visible
    max_depth: int


Result = Submitted | CoordinatorError


def submit_runs(
    conn: Connection, items: Sequence[NewRun], *, max_depth: int = 10, most_demands: int = 0
) -> list[Result]:
    """Create the runs, and the sessions of starts (PROTOCOL, Submission). Safe to repeat with the same ids.

    One result per item, in order. Errors: SessionExists, NotFound (session, parent session), ParentIsDescendant,
    ParentOfAnotherOwner, TooDeep, KeyReused, TooManyDemands (new ones of an owner that has ``most_demands`` distinct
    sets already; 0: any number). A failed item leaves nothing behind, its idempotency key included. Items that concern
    the same session or key are applied in rounds, in order.
    """
    results: dict[int, Result] = {}
    wanted = _wanted_demands(conn, items)
    profiles = ensure_profiles(conn, wanted, [item.caller.owner for item in items], most_demands)
    for places in in_rounds_of_many(items, _touches, _reads):
        allowed = [place for place in places if wanted[place].hash in profiles]
        results.update((place, TooManyDemands(most_demands)) for place in places if place not in allowed)
        batch = [items[place] for place in allowed]
        results.update(zip(allowed, _submit_round(conn, batch, profiles, max_depth), strict=True))
    return [results[place] for place in range(len(items))]


def _touches(item: NewRun) -> list[Any]:
    return [item.own_session] if item.key is None else [item.own_session, item.key]


def _reads(item: NewRun) -> list[Any]:
    return [] if item.parent_session_id is None else [item.parent_session_id]


def _wanted_demands(conn: Connection, items: Sequence[NewRun]) -> list[Demands]:
    """Return the demands of each item, with the affinity of its session as read before any lock is taken."""
    resumed = [item.own_session for item in items if item.type is RunType.RESUME]
    sessions = read_sessions_unlocked(conn, set(resumed))
    return [_demands(item, sessions.get(item.own_session)) for item in items]


def _demands(item: NewRun, session: LockedSession | None) -> Demands:
    if item.type is RunType.RESUME and item.affinity and session is not None:
        return resume_demands(session.hostname, session.executor_profile, item.additional_demands)
    return _start_demands(item.additional_demands)


@functools.lru_cache(1024)
def _start_demands(additional: Demands) -> Demands:
    return Demands(executor_type=AUTONOMOUS).merged(additional)


def resume_demands(hostname: str | None, executor_profile: str | None, additional: Demands = NO_DEMANDS) -> Demands:
    """Return the demands of a resume: the session's affinity first, except for a hostname that the request names."""
    hostname = hostname if additional.hostname is None else additional.hostname
    affinity = Demands(hostname=hostname, executor_profile=executor_profile)
    return affinity.merged(Demands(executor_type=AUTONOMOUS)).merged(additional)


def _submit_round(conn: Connection, items: Sequence[NewRun], profiles: dict[str, int], max_depth: int) -> list[Result]:
    """Submit items of different sessions and keys: keys, new sessions, locks, runs, history."""
    results: dict[str, Result] = {}
    answered = _take_keys(conn, items, results)
    fresh = [item for item in items if item.run_id not in results]
    parents = [item.parent_session_id for item in fresh if item.parent_session_id is not None]
    starts = [item for item in fresh if item.type is RunType.START]
    # Insert new sessions before the locks: of two transactions that insert the same one the second waits with no lock.
    created = submit_rows.begin_sessions(conn, starts)
    resumed = [item.own_session for item in fresh if item.type is RunType.RESUME]
    locked = lock_sessions(conn, {*resumed, *parents})
    repeated = submit_rows.known_runs(conn, [item.run_id for item in starts if item.own_session not in created])
    above = ancestors(conn, [p for p in parents if p in locked])
    moved = [item.own_session for item in fresh if _moves(item, locked.get(item.own_session))]
    named = [(item.caller, name) for item in fresh for name in (item.own_session, item.parent_session_id or "")]
    state = LockedState(created, locked, above, heights(conn, moved, max_depth), find_visible(conn, named), max_depth)
    plans: list[Plan] = []
    for item in fresh:
        if item.run_id in repeated:
            results[item.run_id] = Submitted(item.run_id, item.own_session)
            continue
        plan = _plan(item, state)
        if isinstance(plan, Plan):
            plans.append(plan)
        else:
            results[item.run_id] = plan
    failed = [item for item in fresh if isinstance(results.get(item.run_id), CoordinatorError)]
    submit_rows.drop_sessions(conn, [item.own_session for item in failed if item.own_session in created])
    submit_rows.drop_keys(conn, [item.key for item in failed if item.key is not None and item.key not in answered])
    _write(conn, plans, profiles, created)
    results.update({plan.item.run_id: Submitted(plan.item.run_id, plan.item.own_session) for plan in plans})
    return [results[item.run_id] for item in items]


def _take_keys(
    conn: Connection,
    items: Sequence[NewRun],
    results: dict[str, Result],
) -> set[tuple[str, str]]:
    """Store the items' idempotency keys; return the keys answered before.

    A second transaction with the same key waits here for the first, and gets its answer.
    """
    _answer_by_former_keys(conn, [item for item in items if item.former_key is not None], results)
    keyed = [item for item in items if item.key is not None and item.run_id not in results]
    if not keyed:
        return set()
    taken = submit_rows.take_keys(conn, keyed)
    known = submit_rows.read_keys(conn, [item.key for item in keyed if item.key is not None and item.key not in taken])
    for item in keyed:
        row = known.get(item.key) if item.key is not None else None
        if row is None:
            continue
        if row.body_hash != (item.body_hash or ""):
            results[item.run_id] = KeyReused(item.idempotency_key or "")
        else:
            results[item.run_id] = Submitted(row.run_id, row.session_id, replayed=row.run_id != item.run_id)
    return set(known)


def _answer_by_former_keys(conn: Connection, items: Sequence[NewRun], results: dict[str, Result]) -> None:
    """Answer repeats of keys stored before each admin had its own namespace; another body is no repeat."""
    keys = [key for item in items for key in (item.key, item.former_key) if key is not None]
    known = submit_rows.read_keys(conn, keys)
    for item in items:
        row = known.get(item.former_key) if item.former_key is not None and item.key not in known else None
        if row is not None and row.body_hash == (item.body_hash or ""):
            results[item.run_id] = Submitted(row.run_id, row.session_id, replayed=True)


def _plan(item: NewRun, state: LockedState) -> Plan | CoordinatorError:
    parent = None if item.parent_session_id is None else state.locked.get(item.parent_session_id)
    if item.type is RunType.START:
        if item.own_session not in state.created:
            return SessionExists(item.own_session)
        return _refused_parent(item, None, parent, state) or _start(item, parent, state)
    session = state.locked.get(item.own_session)
    if session is None or not can_view(item.caller, item.own_session, session.owner, state.visible):
        return NotFound("session", item.own_session)
    return _refused_parent(item, session, parent, state) or _resume(item, session, parent)


def _moves(item: NewRun, session: LockedSession | None) -> bool:
    """Return whether the item is a resume that is to bring its session another parent."""
    return session is not None and item.parent_session_id not in {None, session.parent_session_id}


def _refused_parent(
    item: NewRun, session: LockedSession | None, parent: LockedSession | None, state: LockedState
) -> CoordinatorError | None:
    """Return why the item's parent may not be one, None when it may; ``session`` is the resumed one."""
    if item.parent_session_id is None:
        return None
    start = item.type is RunType.START
    if (
        parent is None
        or not can_view(item.caller, item.parent_session_id, parent.owner, state.visible)
        or (start and item.parent_session_id == item.own_session)
    ):
        return NotFound("parent session", item.parent_session_id)
    above = state.ancestors.get(item.parent_session_id, set())
    if item.own_session in above:
        return ParentIsDescendant(item.parent_session_id)
    if session is not None and session.owner != parent.owner:
        return ParentOfAnotherOwner(item.parent_session_id)
    deepest = len(above) + state.heights.get(item.own_session, 0)
    if (start or _moves(item, session)) and deepest > state.max_depth:
        return TooDeep(deepest, state.max_depth)
    return None


def _start(item: NewRun, parent: LockedSession | None, state: LockedState) -> Plan:
    return Plan(
        item,
        owner=item.caller.owner if parent is None else parent.owner,
        depth=0 if parent is None else len(state.ancestors[parent.session_id]),
        agent_name=item.agent_name,
        project_dir=item.project_dir,
        scope=_merged(None if parent is None else parent.scope, item.scope),
        demands=_demands(item, None),
    )


def _resume(item: NewRun, session: LockedSession, parent: LockedSession | None) -> Plan:
    return Plan(
        item,
        owner=session.owner,
        depth=session.depth,
        agent_name=item.agent_name if item.agent_name is not None else session.agent_name,
        project_dir=item.project_dir if item.project_dir is not None else session.project_dir,
        scope=_merged(session.scope, None if parent is None else parent.scope, item.scope),
        demands=_demands(item, session),
        session_seq=session.next_run,
    )


def _merged(*scopes: str | None) -> str | None:
    """Merge the scopes, later keys over earlier ones: the session's, its parent's latest, the run's own."""
    given = [scope for scope in scopes if scope is not None]
    if len(given) < 2:
        return given[0] if given else None
    return json.dumps(
        {key: value for scope in given for key, value in json.loads(scope).items()}, separators=(",", ":")
    )


def _write(conn: Connection, plans: Sequence[Plan], profiles: dict[str, int], created: dict[str, Session]) -> None:
    if not plans:
        return
    # Add profiles for sessions whose affinity changed after it was read.
    changed = [plan.demands for plan in plans if plan.demands.hash not in profiles]
    profiles |= ensure_profiles(conn, changed) if changed else {}
    fresh = submit_rows.insert_runs(conn, plans, [profiles[plan.demands.hash] for plan in plans])
    written = [plan for plan in plans if plan.item.run_id in fresh]
    resumed = [plan for plan in written if plan.item.own_session not in created]
    filled = [
        plan for plan in written if plan.item.own_session not in created or plan.item.parent_session_id is not None
    ]
    sessions = {**created, **submit_rows.fill_sessions(conn, filled)}
    rows = [
        session_updated(sessions[plan.item.own_session], "session_created")
        for plan in written
        if plan.item.own_session in created
    ]
    rows += sessions_updated(update_session_status(conn, [SessionChange(plan.item.own_session) for plan in resumed]))
    rows += [_run_created(plan) for plan in written]
    record_events(conn, rows)


def _run_created(plan: Plan) -> EventRow:
    item = plan.item
    shown = {
        "run_id": item.run_id,
        "session_id": item.own_session,
        "status": "pending",
        "runner_id": None,
        "attempt": 0,
        "error": None,
    }
    return EventRow("run_updated", item.own_session, encode({"run": shown}), plan.owner, item.run_id)
