"""Tickets for streams: a browser's EventSource sends no header, so it shows one of these, once."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import Connection, text

from models.core.callers import Caller, Role
from models.core.errors import NotFound


@dataclass(frozen=True, slots=True)
class NewTicket:
    """A ticket to be: for whom, for which stream (``filters``, JSON text), how many seconds it may wait to be used.

    ``lives_for``: the seconds for which the credential it was asked with is good, None for ever; ``key_id`` that
    credential, if it is a key: the stream ends with it.
    """

    ticket_hash: str
    caller: Caller
    filters: str
    seconds: float
    key_id: str | None = None
    lives_for: float | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket was given for."""

    caller: Caller
    filters: str
    key_id: str | None
    lives_for: float | None


TicketResult: TypeAlias = Ticket | NotFound

_ADD = text("""
    INSERT INTO stream_tickets (ticket_hash, role, owner, key_id, valid_until, filters, expires_at)
    SELECT t.ticket_hash, t.role, t.owner, t.key_id, now() + make_interval(secs => t.lives_for),
        CAST(t.filters AS json), now() + make_interval(secs => t.seconds)
    FROM unnest(CAST(:hashes AS text[]), CAST(:roles AS text[]), CAST(:owners AS text[]), CAST(:keys AS text[]),
                CAST(:lives_for AS double precision[]), CAST(:filters AS text[]),
                CAST(:seconds AS double precision[]))
        AS t(ticket_hash, role, owner, key_id, lives_for, filters, seconds)
    ORDER BY t.ticket_hash
    ON CONFLICT (ticket_hash) DO NOTHING
""")

# Those that were never used; what is being used at this moment is left alone.
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
    RETURNING t.ticket_hash, t.role, t.owner, t.key_id, CAST(t.filters AS text) AS filters,
        t.expires_at > clock_timestamp() AS in_time,
        CASE WHEN t.valid_until IS NOT NULL
             THEN greatest(CAST(extract(epoch FROM t.valid_until - clock_timestamp()) AS float), 0) END AS lives_for
""")


def hash_ticket(ticket: str) -> str:
    """Return what is stored of a ticket."""
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).hexdigest()


def issue_tickets(conn: Connection, items: Sequence[NewTicket]) -> list[bool]:
    """Store tickets, and remove old ones that nobody used. Safe to repeat."""
    conn.execute(_SWEEP)
    conn.execute(
        _ADD,
        {
            "hashes": [item.ticket_hash for item in items],
            "roles": [item.caller.role.value for item in items],
            "owners": [item.caller.owner for item in items],
            "keys": [item.key_id for item in items],
            "lives_for": [item.lives_for for item in items],
            "filters": [item.filters for item in items],
            "seconds": [item.seconds for item in items],
        },
    )
    return [True for _ in items]


def redeem_tickets(conn: Connection, hashes: Sequence[str]) -> list[TicketResult]:
    """Take tickets away and return what they were given for; of all who show the same one, anywhere, one gets it.

    NotFound for one that is used, too old or none of ours. A repeat after a lost answer finds it used: then its holder
    must ask for another one.
    """
    rows = {row.ticket_hash: row for row in conn.execute(_TAKE, {"hashes": sorted(set(hashes))}) if row.in_time}
    results: list[TicketResult] = []
    for one in hashes:
        row = rows.pop(one, None)
        if row is None:
            results.append(NotFound("ticket", ""))
        else:
            results.append(Ticket(Caller(Role(row.role), row.owner), row.filters, row.key_id, row.lives_for))
    return results
