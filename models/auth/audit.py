"""The audit log: what administrators did, one row an act in its transaction, and an event for admins who ask for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from models.core.callers import Caller, Role
from models.state.events_outbox import EventRow, encode, record_events
from models.state.runs import iso

KIND: Final = "audit"
# It belongs to no session: the delete of one, and retention's look for what is left of one, pass it by.
NO_SESSION: Final = ""


class Act(StrEnum):
    """What is written down: who may come in, and what an admin ended of somebody else's."""

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
    """An act. ``by`` as ``Caller.by``; ``target`` is an id, never a secret; ``owner`` whose it was, None: nobody's."""

    act: Act
    by: str
    target: str
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An act as the log keeps it; ``at`` by the database's clock."""

    act: str
    by: str
    target: str
    owner: str | None
    at: datetime


_WRITE = text("""
    INSERT INTO audit_log (act, actor, target, owner)
    SELECT d.act, d.actor, d.target, d.owner
    FROM unnest(CAST(:acts AS text[]), CAST(:actors AS text[]), CAST(:targets AS text[]), CAST(:owners AS text[]))
         WITH ORDINALITY AS d(act, actor, target, owner, place)
    ORDER BY d.place
    RETURNING audit_id, act, actor, target, owner, created_at
""")

_NEWEST = text("""
    SELECT act, actor, target, owner, created_at FROM audit_log ORDER BY audit_id DESC LIMIT :most
""")


def answered_for(caller: Caller, act: Act, target: str, owner: str | None) -> list[AuditedAct]:
    """Return what is to be written down when the caller ends something of ``owner``: the act, or nothing.

    An admin answers for it, unless it is his own by name: what has no owner may be anybody's. While authentication is
    off nobody has a name to be written down.
    """
    if caller.role is not Role.ADMIN or (owner is not None and owner == caller.owner) or caller.by is None:
        return []
    return [AuditedAct(act, caller.by, target, owner)]


def reported_for(
    caller: Caller, act: Act, target: str, owner: str | None, runner_owner: str | None
) -> list[AuditedAct]:
    """Return what is to be written down when the caller reports an end as a runner whose registration ``runner_owner``
    made: nothing as a runner of its own, whose work it is.
    """
    is_own = runner_owner is not None and runner_owner == (caller.owner or "")
    return [] if is_own else answered_for(caller, act, target, owner)


def record_acts(conn: Connection, acts: Sequence[AuditedAct]) -> None:
    """Write the acts down, in order, and tell of them on the feed; call it once the rows they concern are locked.

    The log is kept for ever, its events as long as others. No owner stands on the event: it passes the filter of an
    admin only.
    """
    if not acts:
        return
    values = {
        "acts": [one.act.value for one in acts],
        "actors": [one.by for one in acts],
        "targets": [one.target for one in acts],
        "owners": [one.owner for one in acts],
    }
    rows = sorted(conn.execute(_WRITE, values).all(), key=lambda row: int(row.audit_id))
    record_events(conn, [EventRow(KIND, NO_SESSION, encode(entry_json(_as_entry(row)))) for row in rows])


def newest_acts(conn: Connection, limit: int) -> list[AuditEntry]:
    """Return the newest ``limit`` acts, oldest of them first."""
    return [_as_entry(row) for row in conn.execute(_NEWEST, {"most": limit})][::-1]


def entry_json(entry: AuditEntry) -> dict[str, Any]:
    """Return an act as the feed and the command line show it (docs/protocol.md, Feed)."""
    return {
        "type": KIND,
        "act": entry.act,
        "by": entry.by,
        "target": entry.target,
        "owner": entry.owner,
        "at": iso(entry.at),
    }


def _as_entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(row.act, row.actor, row.target, row.owner, row.created_at)
