from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from models.claims.claim import Ask
from models.claims.orders import STOP_DUE, STOP_RESEND_SECONDS
from models.claims.polls import PollAnswer
from models.claims.script_syncs import SentScripts, mark_scripts_unsent
from models.schema.sql import sql

# Skip a row that a dispatcher has locked or deleted: its poll is being given a run, and a later poll gets the stop.
# Each stop goes to one poll; two instances that look at the same time find different ones, or none.
_ANSWER = sql(
    """
    WITH asked AS MATERIALIZED (
        SELECT * FROM unnest(CAST(:polls AS text[]), CAST(:runner_ids AS text[]), CAST(:registrations AS bigint[]))
            AS a(poll_id, runner_id, registration)
    ), locked AS MATERIALIZED (
        SELECT w.poll_id, w.runner_id, w.registration FROM waiting_polls w
        WHERE w.poll_id = ANY(CAST(:polls AS text[])) ORDER BY w.poll_id FOR UPDATE SKIP LOCKED
    ), chosen AS MATERIALIZED (
        SELECT DISTINCT ON (locked.runner_id) locked.runner_id, locked.poll_id
        FROM locked JOIN asked USING (poll_id, runner_id, registration)
        JOIN runners n ON n.runner_id = locked.runner_id AND n.registration = locked.registration
            AND n.runner_id = ANY(CAST(:runner_ids AS text[])) AND n.left_at IS NULL AND n.leave_told_at IS NULL
        ORDER BY locked.runner_id, locked.poll_id
    ), due AS MATERIALIZED (
        SELECT c.stop_id FROM stop_commands c
        WHERE c.runner_id = ANY(ARRAY(SELECT runner_id FROM chosen))
          AND $stop_due
        ORDER BY c.stop_id FOR UPDATE SKIP LOCKED
    ), sent AS (
        UPDATE stop_commands c SET sent_at = clock_timestamp() FROM due
        WHERE c.stop_id = due.stop_id AND c.runner_id = ANY(ARRAY(SELECT runner_id FROM chosen))
        RETURNING c.runner_id, c.session_id, c.stop_id
    ), unparked AS (
        DELETE FROM waiting_polls WHERE poll_id = ANY(ARRAY(
            SELECT poll_id FROM chosen WHERE runner_id IN (SELECT runner_id FROM sent)))
    )
    SELECT chosen.poll_id, sent.session_id FROM sent JOIN chosen USING (runner_id) ORDER BY sent.stop_id
    """,
    stop_due=STOP_DUE,
)


def answer_stops(conn: Connection, asks: Sequence[Ask]) -> list[PollAnswer]:
    """Answer parked polls with the stops for their runners; an empty answer where there are none.

    One statement. It ends the poll, to which nothing is dispatched any more. All other answers, and polls without a
    row, are left to ``claim_parked``.
    """
    rows = conn.execute(
        _ANSWER,
        {
            "polls": [ask.poll_id for ask in asks],
            "runner_ids": [ask.runner_id for ask in asks],
            "registrations": [ask.offer.registration if ask.offer is not None else None for ask in asks],
            "again": STOP_RESEND_SECONDS,
        },
    )
    stops: dict[str, list[str]] = {}
    for row in rows:
        stops.setdefault(row.poll_id, []).append(row.session_id)
    return [PollAnswer(stop_sessions=stops.get(ask.poll_id, [])) for ask in asks]


@dataclass(frozen=True, slots=True)
class Undelivered:
    """Orders that count as sent to a runner whose client was gone before the first byte: stops, by session, scripts and
    a leave.
    """

    runner_id: str
    sessions: tuple[str, ...] = ()
    leave: bool = False
    scripts: SentScripts | None = None


_MARK_LEAVES_UNDELIVERED = text("""
    UPDATE runners SET leave_told_at = NULL
    WHERE runner_id IN (
        SELECT runner_id FROM runners
        WHERE runner_id = ANY(CAST(:runner_ids AS text[])) AND left_at IS NULL AND leave_told_at IS NOT NULL
        ORDER BY runner_id FOR NO KEY UPDATE)
""")

_MARK_STOPS_UNDELIVERED = text("""
    WITH undelivered AS MATERIALIZED (
        SELECT c.stop_id FROM unnest(CAST(:runner_ids AS text[]), CAST(:sessions AS text[])) AS u(runner_id, session_id)
        JOIN stop_commands c ON c.session_id = u.session_id AND c.runner_id = u.runner_id
            AND c.session_id = ANY(CAST(:sessions AS text[]))
        ORDER BY c.stop_id FOR UPDATE OF c
    )
    UPDATE stop_commands c SET sent_at = NULL FROM undelivered
    WHERE c.stop_id = undelivered.stop_id AND c.session_id = ANY(CAST(:sessions AS text[]))
""")


def mark_undelivered(conn: Connection, items: Sequence[Undelivered]) -> list[Undelivered]:
    """Mark undelivered orders as not sent: the runner's next poll gets them, and is not refused after a leave.

    Runners are locked before stops, as by registration. Safe to repeat: at worst an order is sent twice.
    """
    leaving = [item.runner_id for item in items if item.leave]
    if leaving:
        conn.execute(_MARK_LEAVES_UNDELIVERED, {"runner_ids": leaving})
    stops = [(item.runner_id, session_id) for item in items for session_id in item.sessions]
    if stops:
        runner_ids, sessions = zip(*stops, strict=True)
        conn.execute(_MARK_STOPS_UNDELIVERED, {"runner_ids": list(runner_ids), "sessions": list(sessions)})
    mark_scripts_unsent(conn, [item.scripts for item in items if item.scripts is not None])
    return list(items)
