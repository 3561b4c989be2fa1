"""Tickets for streams: single-use credentials for a browser's EventSource, which sends no header."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import Connection, text

from models.core.callers import Caller, Role
from models.core.errors import NotFound
from models.schema.columns import array_rows
from models.schema.sql import sql
from models.schema.tables import stream_tickets


@dataclass(frozen=True, slots=True)
class NewTicket:
    """Ticket to issue: its caller, its stream (``filters``, JSON text) and the seconds within which it must be used.

    ``lives_for``: seconds until the credential that asked for it expires, None for never; ``key_id``: that credential
    if it is a key, ``session_hash``: if it is a session of the console. The stream ends with it.
    """

    ticket_hash: str
    caller: Caller
    filters: str
    seconds: float
    key_id: str | None = None
    lives_for: float | None = None
    session_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    caller: Caller
    filters: str
    key_id: str | None
    lives_for: float | None
    session_hash: str | None


TicketResult: TypeAlias = Ticket | NotFound

_ADD = sql(
    """
    INSERT INTO stream_tickets ($columns, valid_until, expires_at)
    SELECT $values, now() + make_interval(secs => t.lives_for), now() + make_interval(secs => t.seconds)
    FROM unnest($arrays, CAST(:lives_for AS double precision[]), CAST(:seconds AS double precision[]))
        AS t($columns, lives_for, seconds)
    ORDER BY t.ticket_hash
    ON CONFLICT (ticket_hash) DO NOTHING
    """,
    **array_rows("t", stream_tickets, ["ticket_hash", "role", "owner", "key_id", "session_hash", "filters"]),
)

# Delete unused ones; a ticket that is being redeemed is locked and skipped.
_SWEEP = text("""
    DELETE FROM stream_tickets t
    USING (SELECT ticket_hash FROM stream_tickets WHERE expires_at < now() - interval '1 minute'
           ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED) old
    WHERE t.ticket_hash = old.ticket_hash
""")

_TAKE = text("""
    WITH shown AS MATERIALIZED (
        SELECT ticket_hash FROM stream_tickets WHERE ticket_hash = ANY(CAST(:hashes AS text[]))
        ORDER BY ticket_hash FOR UPDATE
    )
    DELETE FROM stream_tickets t USING shown WHERE t.ticket_hash = shown.ticket_hash
    RETURNING t.ticket_hash, t.role, t.owner, t.key_id, t.session_hash, CAST(t.filters AS text) AS filters,
        t.expires_at > clock_timestamp() AS in_time,
        CASE WHEN t.valid_until IS NOT NULL
             THEN greatest(CAST(extract(epoch FROM t.valid_until - clock_timestamp()) AS float), 0) END AS lives_for
""")


def issue_tickets(conn: Connection, items: Sequence[NewTicket]) -> list[bool]:
    """Store tickets and delete up to 1,000 that expired unused more than a minute ago. Safe to repeat."""
    conn.execute(_SWEEP)
    conn.execute(
        _ADD,
        {
            "ticket_hash": [item.ticket_hash for item in items],
            "role": [item.caller.role.value for item in items],
            "owner": [item.caller.owner for item in items],
            "key_id": [item.key_id for item in items],
            "session_hash": [item.session_hash for item in items],
            "filters": [item.filters for item in items],
            "lives_for": [item.lives_for for item in items],
            "seconds": [item.seconds for item in items],
        },
    )
    return [True for _ in items]


def redeem_tickets(conn: Connection, hashes: Sequence[str]) -> list[TicketResult]:
    """Delete the tickets and return what they were issued for; of all requests that show the same ticket, one gets it.

    NotFound for a used, expired or unknown ticket. After a lost answer the ticket is used: the client asks for another.
    """
    rows = {row.ticket_hash: row for row in conn.execute(_TAKE, {"hashes": sorted(set(hashes))}) if row.in_time}
    results: list[TicketResult] = []
    for ticket_hash in hashes:
        row = rows.pop(ticket_hash, None)
        if row is None:
            results.append(NotFound("ticket", ""))
        else:
            caller = Caller(Role(row.role), row.owner)
            results.append(Ticket(caller, row.filters, row.key_id, row.lives_for, row.session_hash))
    return results
