"""Drain runners: an administrator takes one out of service, and it gets no new run until the drain is undone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import Connection, text

from models.auth.audit import Act, AuditedAct, record_acts
from models.core.callers import ADMIN, UNNAMED, Caller
from models.core.errors import NotFound
from models.core.limits import DEFAULT_LIMITS, Limits
from models.core.rounds import in_rounds
from models.runners.listing import IS_KNOWN, TOLD_CAPACITY, RunnerInfo, read_runners
from models.schema.sql import sql


@dataclass(frozen=True, slots=True)
class SetDrain:
    """Request to drain a runner, or to undo it; ``reason`` is for people. The caller is an administrator."""

    runner_id: str
    draining: bool
    reason: str | None = None
    caller: Caller = ADMIN


@dataclass(frozen=True, slots=True)
class Drained:
    """Runner as it is after the request; ``changed`` False: it was so before. ``undone``: it takes runs again."""

    runner: RunnerInfo
    changed: bool
    undone: bool


DrainResult: TypeAlias = Drained | NotFound

_LOCK = sql(
    """
    SELECT n.runner_id, n.owner, n.draining_since IS NOT NULL AS draining FROM runners n
    WHERE n.runner_id = ANY(CAST(:runner_ids AS text[])) AND $is_known
    ORDER BY n.runner_id FOR NO KEY UPDATE OF n
    """,
    is_known=IS_KNOWN,
)

# Claims read ``draining_since``; those of the last release, which do not know it, find no capacity.
_DRAIN = text("""
    UPDATE runners n
    SET draining_since = clock_timestamp(), drain_reason = d.reason, drained_capacity = n.capacity, capacity = 0
    FROM unnest(CAST(:runner_ids AS text[]), CAST(:reasons AS text[])) AS d(runner_id, reason)
    WHERE n.runner_id = d.runner_id
""")

_UNDO = sql(
    """
    UPDATE runners n
    SET draining_since = NULL, drain_reason = NULL, drained_capacity = NULL, capacity = $told_capacity
    WHERE n.runner_id = ANY(CAST(:runner_ids AS text[]))
    """,
    told_capacity=TOLD_CAPACITY,
)

# Find the transactions of our processes that may have read a runner before now: each holds the lock on the table until
# its end, and takes it before the snapshot in which it reads. A claim reads its runner in its own transaction. Others,
# as a dump that reads all tables for hours, claim nothing.
_OPEN = text("""
    SELECT l.virtualtransaction
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'relation' AND l.relation = CAST('runners' AS regclass) AND l.granted
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND a.application_name LIKE 'coordinator%' AND l.pid <> pg_backend_pid()
""")


def set_drains(conn: Connection, items: Sequence[SetDrain], *, limits: Limits = DEFAULT_LIMITS) -> list[DrainResult]:
    """Drain runners, or undo it (PROTOCOL, Runners). Safe to repeat: a drain keeps its first time and reason.

    NotFound for one that is unknown, has left or is forgotten. A draining runner keeps its runs and is given no other;
    registering again changes nothing of this. A claim that began before the commit may still commit:
    ``open_transactions`` tells when none can. Each change is audited.
    """
    results: dict[int, DrainResult] = {}
    for ordinals in in_rounds(item.runner_id for item in items):
        chosen = [items[ordinal] for ordinal in ordinals]
        results.update(zip(ordinals, _round(conn, {item.runner_id: item for item in chosen}, limits), strict=True))
    return [results[ordinal] for ordinal in range(len(items))]


def _round(conn: Connection, items: Mapping[str, SetDrain], limits: Limits) -> list[DrainResult]:
    values = {"runner_ids": sorted(items), "forget": limits.forget_runner}
    rows = {row.runner_id: row for row in conn.execute(_LOCK, values)}
    changing = [items[runner_id] for runner_id, row in rows.items() if row.draining is not items[runner_id].draining]
    starting = [item for item in changing if item.draining]
    ending = [item for item in changing if not item.draining]
    if starting:
        reasons = {"runner_ids": [item.runner_id for item in starting], "reasons": [item.reason for item in starting]}
        conn.execute(_DRAIN, reasons)
    if ending:
        conn.execute(_UNDO, {"runner_ids": [item.runner_id for item in ending]})
    record_acts(conn, [_act(item, rows[item.runner_id].owner) for item in changing])
    shown = read_runners(conn, list(rows), limits=limits)
    return [
        Drained(shown[runner_id], changed=item in changing, undone=item in ending)
        if runner_id in shown
        else NotFound("runner", runner_id)
        for runner_id, item in items.items()
    ]


def _act(item: SetDrain, owner: str | None) -> AuditedAct:
    act = Act.RUNNER_DRAINED if item.draining else Act.RUNNER_UNDRAINED
    return AuditedAct(act, item.caller.by or UNNAMED, item.runner_id, owner)


def open_transactions(conn: Connection) -> frozenset[str]:
    """Return the names of the transactions of our processes that may have read a runner before this statement.

    After the commit of a drain a claim that did not see it is among these; once all of them have ended no claim for the
    runner commits any more. A name is not used again.
    """
    return frozenset(conn.execute(_OPEN).scalars())
