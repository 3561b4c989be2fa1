"""Make messages of the ends on the feed: a reader of our own feed, whose position commits with its messages."""

from typing import Final

from sqlalchemy import Connection, text

from models.schema.sql import sql
from models.state.event_sql import iso_text, json_text

# Positions of one transaction, each of which may become a message to a hundred webhooks of an owner and of admins.
MOST_EVENTS: Final = 1_000
# Characters of an error that a message holds.
LONGEST_ERROR: Final = 2_000
# Events of a session that are looked through for its status before.
MOST_LOOKED_THROUGH: Final = 1_000

# Begin where the first of the webhooks in use does: without any, the position stays as it is and nothing is read. Wait
# for no other reader: it makes the same messages.
_LOCK = text("""
    SELECT p.position, h.last_pos, h.floor,
        (SELECT min(w.after_position) FROM webhooks w WHERE NOT w.disabled) AS begins_at
    FROM (SELECT position FROM webhook_head FOR UPDATE SKIP LOCKED) p CROSS JOIN feed_head h
""")

_MOVE = text("UPDATE webhook_head SET position = :upto")

_RUN: Final = {
    "run_id": "e.run_id",
    "session_id": "e.session_id",
    "status": "e.status",
    "owner": "e.owner",
    "agent_name": "r.agent_name",
    "labels": "coalesce(r.labels, CAST('{}' AS jsonb))",
    "attempt": "CAST(e.attempt AS integer)",
    "runner_id": "e.runner_id",
    "error": f"left(e.error, {LONGEST_ERROR})",
    "created_at": iso_text("r.created_at"),
    "started_at": iso_text("r.started_at"),
    "completed_at": iso_text("coalesce(r.completed_at, e.created_at)"),
}
_SESSION: Final = {
    "session_id": "e.session_id",
    "status": "e.status",
    "owner": "e.owner",
    "agent_name": "e.agent_name",
    "parent_session_id": "e.parent_session_id",
    "created_at": "e.began",
}

# After a delete only the event is left of a run: a webhook that asks for agent or labels is not told of it then. A
# session's event that changes no status is no end, as one of a bind. Where none before it is found, since retention has
# dropped them, the event of a change of metadata has an event_uid, and that of an end has none. The id is drawn once
# for each event, hence for all webhooks the same.
_TELL = sql(
    """
    WITH ended AS MATERIALIZED (
        SELECT e.feed_pos, e.created_at, e.owner, e.session_id, e.run_id, 'run.' || e.status AS event_type,
            r.agent_name, r.labels, $run AS shown
        FROM (SELECT feed_pos, created_at, owner, session_id, run_id, frame #>> '{run,status}' AS status,
                  frame #>> '{run,attempt}' AS attempt, frame #>> '{run,runner_id}' AS runner_id,
                  frame #>> '{run,error}' AS error
              FROM events WHERE feed_pos > :after AND feed_pos <= :upto AND kind = 'run_updated') e
        LEFT JOIN runs r ON r.run_id = e.run_id
        WHERE e.status IN $TERMINAL
        UNION ALL
        SELECT e.feed_pos, e.created_at, e.owner, e.session_id, NULL, 'session.' || e.status,
            e.agent_name, newest.labels, $session
        FROM (SELECT feed_pos, created_at, owner, session_id, frame #>> '{session,status}' AS status,
                  frame #>> '{session,agent_name}' AS agent_name, frame #>> '{session,created_at}' AS began,
                  frame #>> '{session,parent_session_id}' AS parent_session_id, event_uid
              FROM events WHERE feed_pos > :after AND feed_pos <= :upto AND kind = 'session_updated') e
        LEFT JOIN LATERAL (
            SELECT b.frame #>> '{session,status}' AS status
            FROM (SELECT kind, frame, feed_pos FROM events p
                  WHERE p.session_id = e.session_id AND p.feed_pos < e.feed_pos
                  ORDER BY p.feed_pos DESC LIMIT :looked_through) b
            WHERE b.kind IN ('session_updated', 'session_created') ORDER BY b.feed_pos DESC LIMIT 1
        ) before ON true
        LEFT JOIN LATERAL (
            SELECT r.labels FROM runs r WHERE r.session_id = e.session_id ORDER BY r.session_seq DESC LIMIT 1
        ) newest ON true
        WHERE e.status IN $ENDED AND before.status IS DISTINCT FROM e.status
            AND (before.status IS NOT NULL OR e.event_uid IS NULL)
    ), named AS MATERIALIZED (
        SELECT ended.*, 'evt_' || replace(CAST(gen_random_uuid() AS text), '-', '') AS event_id FROM ended
    )
    INSERT INTO webhook_deliveries (webhook_no, event_id, event_type, session_id, run_id, payload)
    SELECT w.webhook_no, n.event_id, n.event_type, n.session_id, n.run_id,
        '{"type":"' || n.event_type || '","timestamp":"' || $moment || '","data":' || n.shown || '}'
    FROM named n
    JOIN webhooks w ON NOT w.disabled AND n.event_type = ANY(w.events) AND n.feed_pos > w.after_position
        AND (w.owner IS NULL OR w.owner = n.owner)
        AND (w.agent_name IS NULL OR w.agent_name = n.agent_name)
        AND (w.labels IS NULL OR n.labels @> w.labels)
    ORDER BY n.feed_pos, w.webhook_no
    """,
    run=json_text(_RUN),
    session=json_text(_SESSION),
    moment=iso_text("n.created_at"),
)


def match_webhooks(conn: Connection, *, most: int = MOST_EVENTS) -> int:
    """Make the messages of the next ends on the feed, up to ``most`` positions; return how many positions were passed.

    0 when nothing is new, no webhook is in use, or another transaction is at it. The messages and the position commit
    together, so each end becomes one message to each webhook that asks for it, whatever dies when. Messages of one
    session have the order of its events.
    """
    head = conn.execute(_LOCK).one_or_none()
    if head is None or head.begins_at is None:
        return 0
    # Retention may have dropped what was never read.
    after = max(head.position, head.floor, head.begins_at)
    if head.last_pos <= after:
        return 0
    upto = min(head.last_pos, after + most)
    values = {"after": after, "upto": upto}
    conn.execute(_TELL, values | {"looked_through": MOST_LOOKED_THROUGH})
    conn.execute(_MOVE, values)
    return int(upto - after)
