"""Audit log: one row per act of an administrator, in the transaction of the act, and an event for admins that filter
for it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, text

from models.core.callers import Caller, Role
from models.core.errors import BadCursor
from models.schema.columns import array_rows
from models.schema.sql import sql
from models.schema.tables import audit_log
from models.state.cursors import MOST_DIGITS
from models.state.events_outbox import EventRow, encode, record_events
from models.state.runs import iso

KIND: Final = "audit"
# Belongs to no session, so deletes of sessions and retention skip audit events.
NO_SESSION: Final = ""


class Act(StrEnum):
    KEY_CREATED = "key_created"
    KEY_REVOKED = "key_revoked"
    EPOCH_ROTATED = "epoch_rotated"
    HISTORY_IMPORTED = "history_imported"
    RUNNER_DEREGISTERED = "runner_deregistered"
    RUNNER_DRAINED = "runner_drained"
    RUNNER_UNDRAINED = "runner_undrained"
    RUN_STOPPED = "run_stopped"
    RUN_ENDED = "run_ended"
    RUN_REPLAYED = "run_replayed"
    RUN_HELD = "run_held"
    RUN_RELEASED = "run_released"
    HOLD_SET = "hold_set"
    HOLD_REMOVED = "hold_removed"
    SESSION_STOPPED = "session_stopped"
    SESSION_ENDED = "session_ended"
    SESSION_DELETED = "session_deleted"
    BULK_STARTED = "bulk_started"
    BULK_STOPPED = "bulk_stopped"
    ENTRY_CREATED = "registry_entry_created"
    ENTRY_CHANGED = "registry_entry_changed"
    ENTRY_DELETED = "registry_entry_deleted"
    SCHEDULE_PUT = "schedule_put"
    SCHEDULE_DELETED = "schedule_deleted"
    SCHEDULE_PAUSED = "schedule_paused"
    SCHEDULE_RESUMED = "schedule_resumed"
    SCHEDULE_TRIGGERED = "schedule_triggered"
    SCHEDULE_BACKFILLED = "schedule_backfilled"
    WEBHOOK_CREATED = "webhook_created"
    WEBHOOK_CHANGED = "webhook_changed"
    WEBHOOK_DELETED = "webhook_deleted"
    WEBHOOK_ROTATED = "webhook_rotated"
    WEBHOOK_DISABLED = "webhook_disabled"


@dataclass(frozen=True, slots=True)
class AuditedAct:
    """Act to record. ``by`` as ``Caller.by``; ``target`` is an id, never a secret; ``owner`` of the target, None for
    none.
    """

    act: Act
    by: str
    target: str
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    act: str
    by: str
    target: str
    owner: str | None
    at: datetime


_WRITE = sql(
    """
    INSERT INTO audit_log ($columns)
    SELECT $values FROM unnest($arrays) WITH ORDINALITY AS d($columns, place)
    ORDER BY d.place
    RETURNING audit_id, $columns, created_at
    """,
    **array_rows("d", audit_log, ["act", "actor", "target", "owner"]),
)

_NEWEST = text("""
    SELECT act, actor, target, owner, created_at FROM audit_log ORDER BY audit_id DESC LIMIT :most
""")


# Acts that a page looks at, whatever its filters.
LOOKED_AT: Final = 100_000
# Acts are numbered in nearly the order of their times: no transaction takes so long.
DISORDER: Final = timedelta(hours=1)

_PAGE = text("""
    SELECT a.audit_id, a.act, a.actor, a.target, a.owner, a.created_at
    FROM (SELECT * FROM audit_log WHERE CAST(:before AS bigint) IS NULL OR audit_id < CAST(:before AS bigint)
          ORDER BY audit_id DESC LIMIT CAST(:looked_at AS bigint)) a
    WHERE (CAST(:by AS text) IS NULL OR a.actor = CAST(:by AS text))
      AND (CAST(:act AS text) IS NULL OR a.act = CAST(:act AS text))
      AND (CAST(:target AS text) IS NULL OR a.target = CAST(:target AS text))
      AND (CAST(:since AS timestamptz) IS NULL OR a.created_at >= CAST(:since AS timestamptz))
      AND (CAST(:until AS timestamptz) IS NULL OR a.created_at < CAST(:until AS timestamptz))
    ORDER BY a.audit_id DESC LIMIT :most
""")

_LAST_LOOKED_AT = text("""
    SELECT audit_id, created_at FROM audit_log
    WHERE CAST(:before AS bigint) IS NULL OR audit_id < CAST(:before AS bigint)
    ORDER BY audit_id DESC OFFSET CAST(:looked_at AS bigint) - 1 LIMIT 1
""")


def audited_act(caller: Caller, act: Act, target: str, owner: str | None) -> list[AuditedAct]:
    """Return the act to record when the caller ends something of ``owner``, or nothing.

    Recorded are acts of admins, except on what belongs to the admin's own owner; a target without an owner is recorded
    too. While authentication is off no caller has a name, and nothing is recorded.
    """
    if caller.role is not Role.ADMIN or (owner is not None and owner == caller.owner) or caller.by is None:
        return []
    return [AuditedAct(act, caller.by, target, owner)]


def audited_report(
    caller: Caller, act: Act, target: str, owner: str | None, runner_owner: str | None
) -> list[AuditedAct]:
    """Return the act to record when the caller reports an end as a runner whose registration ``runner_owner`` made.

    Nothing if that owner is the caller's own: the work is its own.
    """
    is_own = runner_owner is not None and runner_owner == (caller.owner or "")
    return [] if is_own else audited_act(caller, act, target, owner)


def record_acts(conn: Connection, acts: Sequence[AuditedAct]) -> None:
    """Write the acts in order and put an event for each on the feed; call it once the rows they concern are locked.

    The log is kept for ever, its events as long as others. The events have no owner, so they pass only the filter of an
    admin.
    """
    if not acts:
        return
    values = {
        "act": [act.act.value for act in acts],
        "actor": [act.by for act in acts],
        "target": [act.target for act in acts],
        "owner": [act.owner for act in acts],
    }
    rows = sorted(conn.execute(_WRITE, values).all(), key=lambda row: int(row.audit_id))
    entries = [AuditEntry(*row[1:]) for row in rows]
    record_events(conn, [EventRow(KIND, NO_SESSION, encode(entry_json(entry))) for entry in entries])


def newest_acts(conn: Connection, limit: int) -> list[AuditEntry]:
    """Return the newest ``limit`` acts, oldest first."""
    return [AuditEntry(*row) for row in conn.execute(_NEWEST, {"most": limit})][::-1]


@dataclass(frozen=True, slots=True)
class ActFilter:
    """Acts that satisfy all that is given: at ``since`` or later, before ``until``."""

    by: str | None = None
    act: str | None = None
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditPage:
    entries: list[AuditEntry]
    next_cursor: str | None


def page_acts(
    conn: Connection, which: ActFilter, *, limit: int, before: str | None = None, looked_at: int = LOOKED_AT
) -> AuditPage | BadCursor:
    """Return a page of acts, newest first.

    A page looks at ``looked_at`` acts at most. One that comes to that bound may hold fewer than ``limit``, none even,
    and has a cursor all the same, from which the next looks on.
    """
    if before is not None and not (before.isascii() and before.isdigit() and len(before) <= MOST_DIGITS):
        return BadCursor(before)
    bounds = {"before": int(before or 0) or None, "looked_at": looked_at}
    rows = conn.execute(_PAGE, {**bounds, **asdict(which), "most": limit + 1}).all()
    shown = [AuditEntry(*row[1:]) for row in rows[:limit]]
    if len(rows) > limit:
        return AuditPage(shown, str(rows[limit - 1].audit_id))
    last = conn.execute(_LAST_LOOKED_AT, bounds).one_or_none()
    if last is None or (which.since is not None and last.created_at < which.since - DISORDER):
        return AuditPage(shown, None)
    return AuditPage(shown, str(last.audit_id))


def entry_json(entry: AuditEntry) -> dict[str, Any]:
    return {
        "type": KIND,
        "act": entry.act,
        "by": entry.by,
        "target": entry.target,
        "owner": entry.owner,
        "at": iso(entry.at),
    }
