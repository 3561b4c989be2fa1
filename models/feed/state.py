from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from models.auth.audit import Act, AuditedAct, record_acts
from models.core.ids import uuid7


@dataclass(frozen=True, slots=True)
class FeedState:
    """State of the feed at one moment. Sizes are in bytes, with indexes; rows are Postgres's own estimates."""

    epoch: str
    head: int
    floor: int
    unnumbered: int
    oldest_event_at: datetime | None
    events_bytes: int
    live_rows: int
    dead_rows: int
    vacuumed_at: datetime | None


_STATE = text("""
    SELECT h.epoch, h.last_pos AS head, h.floor,
        (SELECT count(*) FROM events WHERE feed_pos IS NULL)
        + (SELECT coalesce(sum(cardinality(ids)), 0) FROM unnumbered_batches) AS unnumbered,
        (SELECT created_at FROM events WHERE feed_pos > h.floor ORDER BY feed_pos LIMIT 1) AS oldest_event_at,
        pg_total_relation_size('events') AS events_bytes, t.n_live_tup AS live_rows, t.n_dead_tup AS dead_rows,
        greatest(t.last_vacuum, t.last_autovacuum) AS vacuumed_at
    FROM feed_head h JOIN pg_stat_user_tables t ON t.relid = CAST('events' AS regclass)
""")

_ROTATE = text("""
    UPDATE feed_head SET epoch = :fresh FROM (SELECT epoch FROM feed_head FOR UPDATE) former
    RETURNING former.epoch AS former, feed_head.epoch
""")


def feed_state(conn: Connection) -> FeedState:
    return FeedState(**conn.execute(_STATE).mappings().one())


def rotate_epoch(conn: Connection, by: str) -> tuple[str, str]:
    """Replace the epoch of the feed, so that every client is sent ``reset``; return the old one and the new one.

    Needed after a restore: positions that clients have seen would be given again, to other events. ``by``: the name
    that answers for it in the audit log.
    """
    row = conn.execute(_ROTATE, {"fresh": uuid7().replace("-", "")[-12:]}).one()
    record_acts(conn, [AuditedAct(Act.EPOCH_ROTATED, by, row.epoch)])
    return row.former, row.epoch
