"""Orders to runners: stops and leaves, each marked as sent in the transaction that answers a poll with it."""

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, text

from models.schema.sql import sql

STOP_RESEND_SECONDS: Final = 10
# Condition on a stop ``c``: not sent yet, or so long ago that its answer may have been lost.
STOP_DUE: Final = "(c.sent_at IS NULL OR c.sent_at < now() - make_interval(secs => :again))"

_SEND_STOPS = sql(
    """
    UPDATE stop_commands s SET sent_at = clock_timestamp()
    FROM (SELECT c.stop_id FROM stop_commands c
          WHERE c.runner_id = ANY(CAST(:runner_ids AS text[])) AND $stop_due
          ORDER BY c.stop_id FOR UPDATE SKIP LOCKED) due
    WHERE s.stop_id = due.stop_id
    RETURNING s.runner_id, s.session_id, s.stop_id
    """,
    stop_due=STOP_DUE,
)

_SEND_LEAVE = text("""
    UPDATE runners SET leave_told_at = clock_timestamp()
    WHERE runner_id IN (
        SELECT runner_id FROM runners WHERE runner_id = ANY(CAST(:runner_ids AS text[])) AND leave_told_at IS NULL
        ORDER BY runner_id FOR NO KEY UPDATE)
    RETURNING runner_id
""")


def send_stops(conn: Connection, runner_ids: Collection[str]) -> dict[str, list[str]]:
    """Return the sessions that the runners have to stop, by runner."""
    if not runner_ids:
        return {}
    parameters = {"runner_ids": sorted(runner_ids), "again": STOP_RESEND_SECONDS}
    stops: dict[str, list[str]] = {}
    for row in sorted(conn.execute(_SEND_STOPS, parameters), key=lambda row: int(row.stop_id)):
        stops.setdefault(row.runner_id, []).append(row.session_id)
    return stops


def send_leave(conn: Connection, runner_ids: Collection[str]) -> set[str]:
    """Return those of the runners that had not been told to leave."""
    if not runner_ids:
        return set()
    return set(conn.execute(_SEND_LEAVE, {"runner_ids": sorted(runner_ids)}).scalars())
