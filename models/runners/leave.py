from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from sqlalchemy import Connection, text

from models.auth.audit import Act, AuditedAct, audited_act, record_acts
from models.claims.parking import drop_polls
from models.core.callers import ADMIN, Caller
from models.core.errors import NotFound
from models.core.limits import DEFAULT_LIMITS, Limits
from models.runners.agents import drop_agents
from models.runners.departure import LEFT, Ended, end_work, registrations, work_held_by
from models.state.locks import LockedRows, lock_runs
from models.state.visibility import acts_for


@dataclass(frozen=True, slots=True)
class LeaveRunner:
    """Request that a runner leaves: its own, effective now, or another caller's, which its next poll delivers.

    ``caller`` must have made the runner's registration unless it is an admin.
    """

    runner_id: str
    self_initiated: bool
    caller: Caller = ADMIN


@dataclass(frozen=True, slots=True)
class Left:
    """Accepted leave. ``initiated_by`` is ``self`` or ``external``; ``parked_at``: instances that hold polls of the
    runner whose rows were deleted.
    """

    runner_id: str
    initiated_by: str
    parked_at: frozenset[str] = field(default=frozenset(), compare=False)


LeaveResult: TypeAlias = Left | NotFound


@dataclass(frozen=True, slots=True)
class _Existing:
    runner_id: str
    registration: int
    owner: str | None
    left_at: datetime | None
    sends_tokens: bool


_LOCK = text("""
    SELECT runner_id, registration, owner, left_at, sends_tokens FROM runners
    WHERE runner_id = ANY(CAST(:runner_ids AS text[])) ORDER BY runner_id FOR NO KEY UPDATE
""")


_LEAVE_NOW = text("""
    UPDATE runners SET left_at = clock_timestamp(), lost_at = NULL
    WHERE runner_id = ANY(CAST(:runner_ids AS text[])) AND left_at IS NULL
""")


_ASK_TO_LEAVE = text("""
    UPDATE runners SET leave_requested_at = clock_timestamp()
    WHERE runner_id = ANY(CAST(:runner_ids AS text[])) AND leave_requested_at IS NULL
    RETURNING runner_id
""")


def deregister_runners(
    conn: Connection,
    items: Sequence[LeaveRunner],
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> list[LeaveResult]:
    """Deregister runners (PROTOCOL, Runners). Safe to repeat. NotFound for one that is unknown, or of another owner.

    On its own request a runner leaves now with its agents, and its work ends as when it is lost. On another caller's
    request its next poll tells it; a runner that has left already is NotFound then. An admin's request about another
    owner's runner is audited.
    """
    del limits
    leaving = sorted({item.runner_id for item in items if item.self_initiated})
    locked = LockedRows()
    if leaving:
        run_ids, session_ids = work_held_by(conn, leaving)
        locked = lock_runs(conn, run_ids, session_ids)
    rows = conn.execute(_LOCK, {"runner_ids": sorted({item.runner_id for item in items})})
    existing = {row.runner_id: _Existing(*row) for row in rows}
    authorised = [
        item
        for item in items
        if item.runner_id in existing and acts_for(item.caller.subject, existing[item.runner_id].owner)
    ]
    immediate = {item.runner_id: item.self_initiated for item in authorised if existing[item.runner_id].left_at is None}
    immediate.update(
        {item.runner_id: True for item in authorised if item.self_initiated and item.runner_id in immediate}
    )
    parked = _leave_now(
        conn, locked, {runner_id: existing[runner_id] for runner_id in sorted(immediate) if immediate[runner_id]}
    )
    asking = sorted(runner_id for runner_id in immediate if not immediate[runner_id])
    asked = set(conn.execute(_ASK_TO_LEAVE, {"runner_ids": asking}).scalars()) if asking else set()
    affected = asked.union(runner_id for runner_id in immediate if immediate[runner_id])
    _record_leaves(conn, existing, [item for item in authorised if item.runner_id in affected])
    drop_agents(conn, [runner_id for runner_id in immediate if immediate[runner_id]])
    results: list[LeaveResult] = []
    for item in items:
        if item not in authorised or (not item.self_initiated and existing[item.runner_id].left_at is not None):
            results.append(NotFound("runner", item.runner_id))
        else:
            by = "self" if item.self_initiated else "external"
            results.append(Left(item.runner_id, by, parked.get(item.runner_id, frozenset())))
    return results


def _record_leaves(conn: Connection, existing: Mapping[str, _Existing], items: Sequence[LeaveRunner]) -> None:
    acts: dict[str, AuditedAct] = {}
    for item in items:
        owner = existing[item.runner_id].owner
        for act in audited_act(item.caller, Act.RUNNER_DEREGISTERED, item.runner_id, owner):
            acts.setdefault(item.runner_id, act)
    record_acts(conn, list(acts.values()))


def _leave_now(conn: Connection, locked: LockedRows, leaving: Mapping[str, _Existing]) -> dict[str, frozenset[str]]:
    """Mark locked runners as left and end their locked work; return the instances that hold their polls, by runner."""
    if not leaving:
        return {}
    conn.execute(_LEAVE_NOW, {"runner_ids": list(leaving)})
    parked = drop_polls(conn, leaving)
    numbers = registrations(locked)
    ended = {
        number: Ended(LEFT, sends_tokens=row.sends_tokens and number == row.registration)
        for runner_id, row in leaving.items()
        for number in numbers.get(runner_id, ())
    }
    end_work(conn, locked, ended)
    return parked
