"""Count the history by minute and hour: a reader of our own feed, whose position commits with its counts."""

from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, text

from models.overview.measures import BOUNDS
from models.schema.sql import sql
from models.state.unfinished import READY_AT

MINUTE: Final = 60
HOUR: Final = 3600
KEPT_SECONDS: Final = {MINUTE: 48 * 3600, HOUR: 400 * 86_400}
# Positions of one transaction.
MOST_EVENTS: Final = 5_000
MOST_DROPPED: Final = 1_000


def agent_key(agent: str) -> str:
    """Return the SQL of the text by which an agent is counted: a long name is cut, since the key stands in an index."""
    return f"CASE WHEN length({agent}) > 200 THEN left({agent}, 160) || ' ' || md5({agent}) ELSE {agent} END"


class Grouping(StrEnum):
    """Dimensions by which counts are kept apart: each combination that a read asks for has rows of its own.

    So a curve reads one row for each of its points, however many owners and agents there are.
    """

    ALL = "all"
    OWNER = "owner"
    PROFILE = "profile"
    OWNER_PROFILE = "owner and profile"
    AGENT = "agent"
    OWNER_AGENT = "owner and agent"


# Rows to join with counts ``c`` laterally: those to which each count is added.
GROUPS_OF_C: Final = """(VALUES
        ('all', '', ''), ('owner', c.owner, ''),
        ('profile', '', CAST(c.profile_id AS text)), ('owner and profile', c.owner, CAST(c.profile_id AS text)),
        ('agent', '', c.agent), ('owner and agent', c.owner, c.agent)) g(grouped_by, owner, label)"""
# Groupings by the label of their rows: for all owners, and for one.
BY_PROFILE: Final = (Grouping.PROFILE, Grouping.OWNER_PROFILE)
BY_AGENT: Final = (Grouping.AGENT, Grouping.OWNER_AGENT)
BY_NOTHING: Final = (Grouping.ALL, Grouping.OWNER)


def rows_of(owner: str | None, groupings: tuple[Grouping, Grouping]) -> dict[str, str]:
    """Return the values of ``:grouped_by`` and ``:owner`` for the rows of an owner, or of all."""
    return {"grouped_by": groupings[owner is not None].value, "owner": owner or ""}


# Wait for no other reader: it counts the same events.
_LOCK = text("""
    SELECT s.position, h.last_pos, h.floor
    FROM (SELECT position FROM run_totals_head FOR UPDATE SKIP LOCKED) s CROSS JOIN feed_head h
""")

# A submission's event has the moment of its transaction, as the run has; after a delete only its frame is left. The
# claim's moment is the event's, since the run may have been claimed again; its readiness is the run's last one.
_COUNT = sql(
    """
    WITH told AS MATERIALIZED (
        SELECT e.created_at AS at, coalesce(r.owner, e.owner, '') AS owner, coalesce(r.profile_id, 0) AS profile_id,
            $agent AS agent, e.status,
            e.status = $PENDING AND e.attempt = '0'
                AND coalesce(r.created_at = e.created_at, e.reason IS NULL) AS submitted,
            CAST(extract(epoch FROM e.created_at - ($ready_at)) AS float) AS waited,
            CAST(extract(epoch FROM r.completed_at - r.started_at) AS float) AS lasted
        FROM (SELECT created_at, owner, run_id, frame #>> '{run,status}' AS status,
                  frame #>> '{run,attempt}' AS attempt, frame #>> '{run,reason}' AS reason
              FROM events WHERE feed_pos > :after AND feed_pos <= :upto AND kind = 'run_updated') e
        LEFT JOIN runs r ON r.run_id = e.run_id
    ), counted AS (
        SELECT at, owner, profile_id, agent, m.measure, m.bucket
        FROM told
        CROSS JOIN LATERAL (
            SELECT 'submitted' AS measure, 0 AS bucket WHERE submitted
            UNION ALL SELECT status, 0 WHERE status IN $TERMINAL OR status = $CLAIMED
            UNION ALL SELECT 'wait', width_bucket(waited, CAST(:bounds AS float[])) + 1
                WHERE status = $CLAIMED AND waited >= 0
            UNION ALL SELECT 'duration', width_bucket(lasted, CAST(:bounds AS float[])) + 1
                WHERE status IN $TERMINAL AND lasted >= 0
        ) m
    )
    INSERT INTO run_totals AS t (step, grouped_by, owner, measure, period, label, bucket, number)
    SELECT w.step, g.grouped_by, g.owner, c.measure, date_bin(make_interval(secs => w.step), c.at, TIMESTAMPTZ 'epoch'),
        g.label, c.bucket, sum(c.number)
    FROM (SELECT date_bin('1 minute', at, TIMESTAMPTZ 'epoch') AS at, owner, profile_id, agent, measure, bucket,
              count(*) AS number FROM counted GROUP BY 1, 2, 3, 4, 5, 6) c
    CROSS JOIN (VALUES ($minute), ($hour)) w(step)
    CROSS JOIN LATERAL $groups_of_c
    GROUP BY 1, 2, 3, 4, 5, 6, 7
    ON CONFLICT (step, grouped_by, owner, measure, period, label, bucket)
    DO UPDATE SET number = t.number + excluded.number
    """,
    minute=str(MINUTE),
    hour=str(HOUR),
    groups_of_c=GROUPS_OF_C,
    ready_at=READY_AT,
    agent=agent_key("coalesce(r.agent_name, '')"),
)

_MOVE = text("""
    UPDATE run_totals_head SET position = :upto, as_of = coalesce(
        (SELECT created_at FROM events WHERE feed_pos <= :upto AND feed_pos > :after ORDER BY feed_pos DESC LIMIT 1),
        as_of)
""")

_DROP = text("""
    DELETE FROM run_totals WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM run_totals WHERE step = :step AND period < now() - make_interval(secs => :seconds)
        LIMIT :most))
""")


def roll_up(conn: Connection, *, most: int = MOST_EVENTS) -> int:
    """Count the next events of the feed, up to ``most`` positions; return how many positions were passed.

    0 when nothing is new, or another transaction is at it. The counts and the position commit together, so each event
    is counted once, whatever dies when.
    """
    head = conn.execute(_LOCK).one_or_none()
    if head is None or head.last_pos <= head.position:
        return 0
    # Retention may have dropped what was never counted.
    after = max(head.position, head.floor)
    upto = min(head.last_pos, after + most)
    values = {"after": after, "upto": upto}
    conn.execute(_COUNT, values | {"bounds": list(BOUNDS)})
    conn.execute(_MOVE, values)
    return int(upto - head.position)


def drop_old_stats(conn: Connection) -> int:
    """Delete up to 1,000 rows of each step that are older than it is kept; return the number. Safe to repeat."""
    return sum(
        conn.execute(_DROP, {"step": step, "seconds": seconds, "most": MOST_DROPPED}).rowcount
        for step, seconds in KEPT_SECONDS.items()
    )
