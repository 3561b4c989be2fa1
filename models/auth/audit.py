"""Audit log: one row per act of an administrator, in the transaction of the act, and an event for admins that filter
for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, text

from models.core.callers import Caller, Role
from models.schema.columns import array_rows
from models.schema.sql import sql
from models.schema.tables import audit_log
from models.state.events_outbox import EventRow, encode, record_events
from models.state.runs import iso

KIND: Final = "audit"
# Belongs to no session, so deletes of sessions and retention skip audit events.
NO_SESSION: Final = ""


class Act(StrEnum):
    KEY_CREATED = "key_created"
    KEY_REVOKED = "key_revoked"
    EPOCH_ROTATED = "epoch_rotated"
    RUNNER_DEREGISTERED = "runner_deregistered"
    RUN_STOPPED = "run_stopped"
    RUN_ENDED = "run_ended"
    SESSION_STOPPED = "session_stopped"
    SESSION_ENDED = "session_ended"
    SESSION_DELETED = "session_deleted"


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


def entry_json(entry: AuditEntry) -> dict[str, Any]:
    return {
        "type": KIND,
        "act": entry.act,
        "by": entry.by,
        "target": entry.target,
        "owner": entry.owner,
        "at": iso(entry.at),
    }
