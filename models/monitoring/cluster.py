"""Facts of the whole installation for monitoring: unfinished work, runners, feed, duties, outages, tables.

Reads indexes of unfinished work, small tables and statistics; never the history of runs and events.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from models.core.limits import DEFAULT_LIMITS, Limits
from models.runners.listing import IS_KNOWN, IS_ONLINE, TOLD
from models.schema.sql import sql
from models.state.unfinished import IN_HAND_OF_N, CountedBy, count_held, count_in_hand, count_pending

MOST_PROFILES: Final = 50
WATCHED_TABLES: Final = (
    "runs",
    "sessions",
    "events",
    "unnumbered_batches",
    "waiting_polls",
    "child_results",
    "webhook_deliveries",
)

PROFILES = text("""
    SELECT profile_id, unmatched_since IS NOT NULL AS unserved, hostname, project_dir, executor_profile, tags
    FROM demand_profiles WHERE profile_id = ANY(CAST(:profiles AS bigint[]))
""")
RUNNERS = sql(
    """
    SELECT n.executor_profile AS profile, count(*) FILTER (WHERE $is_free) AS online,
        count(*) FILTER (WHERE $is_online AND n.draining_since IS NOT NULL) AS draining,
        count(*) FILTER (WHERE NOT ($is_online) AND n.lost_at IS NULL) AS stale,
        count(*) FILTER (WHERE n.lost_at IS NOT NULL) AS lost,
        coalesce(sum(n.capacity) FILTER (WHERE $is_free), 0) AS slots,
        coalesce(sum(least(hand.runs, n.capacity)) FILTER (WHERE $is_free), 0) AS used
    FROM runners n
    JOIN $told
    LEFT JOIN $in_hand_of_n
    WHERE $is_known
    GROUP BY n.executor_profile
    ORDER BY count(*) DESC
    """,
    is_online=IS_ONLINE,
    is_free=f"{IS_ONLINE} AND n.draining_since IS NULL",
    told=TOLD,
    is_known=IS_KNOWN,
    in_hand_of_n=IN_HAND_OF_N,
)
FEED = text("""
    SELECT clock_timestamp() AS now, h.last_pos AS head, h.floor,
        (SELECT count(*) FROM events WHERE feed_pos IS NULL)
        + (SELECT coalesce(sum(cardinality(ids)), 0) FROM unnumbered_batches) AS unnumbered,
        coalesce(CAST(extract(epoch FROM clock_timestamp() - least(
            (SELECT e.created_at FROM events e WHERE e.feed_pos IS NULL AND e.id > h.numbered_below
             ORDER BY e.id LIMIT 1),
            (SELECT b.created_at FROM unnumbered_batches b WHERE b.first_id > h.numbered_below
             ORDER BY b.first_id LIMIT 1))) AS float), 0) AS oldest
    FROM feed_head h
""")
# Age of the oldest event that is not in the counts of the history.
STATS = text("""
    SELECT coalesce((SELECT CAST(extract(epoch FROM clock_timestamp() - e.created_at) AS float) FROM events e
        WHERE e.feed_pos > t.position ORDER BY e.feed_pos LIMIT 1), 0) AS lag
    FROM run_totals_head t
""")
# Count up to 10,000 of each webhook. A message that waits for an earlier one of its session is not due.
WEBHOOKS = sql("""
    SELECT coalesce(sum(p.number), 0) AS pending,
        coalesce(CAST(extract(epoch FROM clock_timestamp() - min(o.next_at)) AS float), 0) AS oldest
    FROM webhooks w
    CROSS JOIN LATERAL (
        SELECT count(*) AS number FROM (
            SELECT 1 FROM webhook_deliveries d WHERE d.webhook_no = w.webhook_no AND d.state = $DELIVERY_PENDING
            LIMIT 10000) c
    ) p
    LEFT JOIN LATERAL (
        SELECT d.next_at FROM webhook_deliveries d
        WHERE d.webhook_no = w.webhook_no AND d.state = $DELIVERY_PENDING AND d.next_at <= statement_timestamp()
          AND NOT EXISTS (
            SELECT 1 FROM webhook_deliveries e
            WHERE e.webhook_no = d.webhook_no AND e.session_id = d.session_id AND e.session_id <> ''
              AND e.state = $DELIVERY_PENDING AND e.delivery_id < d.delivery_id)
        ORDER BY d.next_at LIMIT 1
    ) o ON true
    WHERE NOT w.disabled
""")
# Workers of the version before record the begin alone.
DUTIES = text("""
    SELECT duty, CAST(extract(epoch FROM coalesce(done_at, last_run)) AS float) AS done_at FROM duties
    WHERE duty = ANY(CAST(:duties AS text[])) AND last_run IS NOT NULL
""")
OUTAGES = text("""
    SELECT kind, count(*) AS number, CAST(sum(extract(epoch FROM ended_at - started_at)) AS float) AS seconds FROM gaps
    WHERE ended_at > now() - interval '1 day' GROUP BY kind
""")
TABLES = text("""
    SELECT relname AS name, n_dead_tup AS dead_rows, pg_total_relation_size(relid) AS bytes FROM pg_stat_user_tables
    WHERE schemaname = current_schema() AND relname = ANY(CAST(:tables AS text[]))
""")


# Seconds since the schedule that is due longest was to be decided.
SCHEDULES = text("""
    SELECT coalesce(CAST(extract(epoch FROM clock_timestamp() - (
        SELECT s.next_at FROM schedules s WHERE NOT s.paused AND s.next_at IS NOT NULL
        ORDER BY s.next_at LIMIT 1)) AS float), 0) AS late
""")


@dataclass(frozen=True, slots=True)
class Queue:
    """Ready runs with the same demands, named by them; ``waited``: seconds of the one that is ready longest.

    ``unserved``: those that no live registration satisfies.
    """

    profile: str
    ready: int
    waited: float
    unserved: int


@dataclass(frozen=True, slots=True)
class RunnerGroup:
    """Runners of one executor profile, by state. Slots are those of online runners that told a capacity.

    Those online that drain count as ``draining`` only.
    """

    profile: str
    online: int
    draining: int
    stale: int
    lost: int
    slots: int
    slots_used: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """Snapshot. ``stats_lag``: age in seconds of the oldest event that the counts of the history leave out;
    ``schedules_late``: seconds since the schedule that is due longest was to be decided; ``webhooks_pending`` and
    ``webhooks_oldest``: messages that wait, and seconds for which the oldest has been due; ``duties``: Unix time at
    which each was last done; ``outages``: number and seconds in the last day, by kind.
    """

    queues: list[Queue]
    waiting: dict[str, int]
    in_hand: dict[str, int]
    runners: list[RunnerGroup]
    head: int
    floor: int
    unnumbered: int
    oldest_unnumbered: float
    stats_lag: float
    schedules_late: float
    webhooks_pending: int
    webhooks_oldest: float
    duties: dict[str, float]
    outages: dict[str, tuple[int, float]]


def read_cluster(conn: Connection, duties: Collection[str], *, limits: Limits = DEFAULT_LIMITS) -> Cluster:
    """Return the snapshot with the MOST_PROFILES longest queues and largest groups of runners, the rest as `other`."""
    pending, held = count_pending(conn, CountedBy.PROFILE), count_held(conn)
    values = {"forget": limits.forget_runner, "stale_after": limits.stale_after}
    runners, feed = conn.execute(RUNNERS, values).all(), conn.execute(FEED).one()
    messages = conn.execute(WEBHOOKS).one()
    return Cluster(
        queues=_queues(conn, pending, feed.now),
        waiting={
            "delayed": sum(row.delayed for row in pending),
            "held": held,
            "session": max(0, sum(row.waiting for row in pending) - held),
        },
        in_hand={row.status: row.number for row in count_in_hand(conn, CountedBy.NOTHING)},
        runners=_groups(runners),
        head=feed.head,
        floor=feed.floor,
        unnumbered=int(feed.unnumbered),
        oldest_unnumbered=feed.oldest,
        stats_lag=conn.execute(STATS).scalar_one(),
        schedules_late=max(0.0, conn.execute(SCHEDULES).scalar_one()),
        webhooks_pending=int(messages.pending),
        webhooks_oldest=messages.oldest,
        duties={row.duty: row.done_at for row in conn.execute(DUTIES, {"duties": list(duties)})},
        outages={row.kind: (row.number, row.seconds) for row in conn.execute(OUTAGES)},
    )


def read_tables(conn: Connection) -> dict[str, tuple[int, int]]:
    """Return dead rows, by Postgres's own estimate, and bytes with indexes of the tables that grow."""
    rows = conn.execute(TABLES, {"tables": list(WATCHED_TABLES)})
    return {row.name: (row.dead_rows, row.bytes) for row in rows}


def _queues(conn: Connection, pending: Sequence[Row[Any]], now: datetime) -> list[Queue]:
    """Merge queues whose demands have the same short name."""
    found: dict[str, Queue] = {}
    rows = sorted((row for row in pending if row.ready), key=lambda row: -row.ready)
    values = {"profiles": [row.profile_id for row in rows]}
    profiles = {profile.profile_id: profile for profile in conn.execute(PROFILES, values)} if rows else {}
    for row in rows:
        profile = profiles.get(row.profile_id)
        name = (
            profile_name(None, None, None, ())
            if profile is None
            else profile_name(profile.hostname, profile.project_dir, profile.executor_profile, profile.tags)
        )
        if name not in found and len(found) >= MOST_PROFILES:
            name = "other"
        known = found.get(name, Queue(name, 0, 0.0, 0))
        waited = 0.0 if row.oldest_ready_at is None else (now - row.oldest_ready_at).total_seconds()
        unserved = known.unserved + (row.ready if profile is not None and profile.unserved else 0)
        found[name] = Queue(name, known.ready + row.ready, max(known.waited, waited), unserved)
    return list(found.values())


def _groups(rows: Sequence[Row[Any]]) -> list[RunnerGroup]:
    found: dict[str, RunnerGroup] = {}
    for row in rows:
        name = row.profile[:80] if len(found) < MOST_PROFILES else "other"
        known = found.get(name, RunnerGroup(name, 0, 0, 0, 0, 0, 0))
        found[name] = RunnerGroup(
            name,
            known.online + row.online,
            known.draining + row.draining,
            known.stale + row.stale,
            known.lost + row.lost,
            known.slots + int(row.slots),
            known.slots_used + int(row.used),
        )
    return list(found.values())


def profile_name(
    hostname: str | None, project_dir: str | None, executor_profile: str | None, tags: Collection[str]
) -> str:
    """Return a short name of a set of demands, as a label of metrics: `any` for runs that demand nothing."""
    parts = [
        executor_profile or "",
        f"host={hostname}" if hostname else "",
        f"dir={project_dir}" if project_dir else "",
        *(f"#{tag}" for tag in sorted(tags)),
    ]
    return " ".join(filter(None, parts))[:80] or "any"
