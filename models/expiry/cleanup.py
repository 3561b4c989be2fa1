from typing import Final

from sqlalchemy import Connection, text

from models.core.limits import DEFAULT_LIMITS, Limits
from models.runs.delete import purge_deleted
from models.schema.sql import sql

MOST: Final = 1000
# A bulk has a thousand chunks at most.
BULKS: Final = 20

_KEYS = text("""
    DELETE FROM idempotency_keys k
    USING (SELECT caller, key FROM idempotency_keys WHERE created_at < now() - make_interval(secs => :age)
           ORDER BY created_at LIMIT :most FOR UPDATE SKIP LOCKED) old
    WHERE k.caller = old.caller AND k.key = old.key
""")

# Delete profiles unused for a day: a submission that uses one refreshes it within the hour. A run that may still be
# claimed keeps its own.
_PROFILES = sql("""
    DELETE FROM demand_profiles p
    USING (SELECT profile_id FROM demand_profiles
           WHERE last_used_at < now() - interval '1 day'
             AND NOT profile_id IN (SELECT profile_id FROM runs
                                    WHERE status IN $UNFINISHED)
           ORDER BY hash LIMIT :most FOR UPDATE SKIP LOCKED) unused
    WHERE p.profile_id = unused.profile_id AND p.last_used_at < now() - interval '1 day'
""")

# Delete runners without runs and sessions; expiry takes those from them first. Keep one that left for an hour, so that
# its leave may be repeated, and one that drains for 30 days, so that it drains when its machine is back.
_RUNNERS = sql("""
    DELETE FROM runners n
    USING (SELECT runner_id FROM runners
           WHERE (left_at < now() - interval '1 hour'
                  OR last_seen < now() - make_interval(secs => :forget)
                      AND last_seen < (SELECT silent_before(CAST(:forget AS float))))
             AND (draining_since IS NULL
                  OR greatest(last_seen, left_at, draining_since) < now() - interval '30 days')
             AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.runner_id = runners.runner_id
                             AND r.status IN $IN_HAND)
             AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.runner_id = runners.runner_id)
           ORDER BY runner_id LIMIT :most FOR UPDATE SKIP LOCKED) old
    WHERE n.runner_id = old.runner_id
""")

# Delete agents of runners that are gone or have left, whose rows a locked row or the last release kept.
_AGENTS = text("""
    DELETE FROM runner_agents a
    USING (SELECT w.name FROM runner_agents w LEFT JOIN runners n ON n.runner_id = w.runner_id
           WHERE n.runner_id IS NULL OR n.left_at IS NOT NULL
           ORDER BY w.name LIMIT :most FOR UPDATE OF w SKIP LOCKED) gone
    WHERE a.name = gone.name
""")

# Delete results delivered a day ago, and those whose parent was deleted while its child ended.
_CHILD_RESULTS = text("""
    DELETE FROM child_results c
    USING (SELECT w.child_run_id FROM child_results w
           LEFT JOIN runs r ON r.run_id = w.delivered_in
           LEFT JOIN sessions p ON p.session_id = w.parent_session_id AND p.incarnation = w.parent_incarnation
           WHERE p.session_id IS NULL OR r.started_at < now() - interval '1 day'
           ORDER BY w.child_run_id LIMIT :most FOR UPDATE OF w SKIP LOCKED) old
    WHERE c.child_run_id = old.child_run_id
""")

# Delete holds of runs that have ended or are gone; those that are deleted leave theirs behind.
_HOLDS = sql("""
    DELETE FROM holds h
    USING (SELECT w.name FROM holds w LEFT JOIN runs r ON r.run_id = w.run_id
           WHERE w.run_id IS NOT NULL AND (r.run_id IS NULL OR r.status IN $TERMINAL)
           ORDER BY w.name LIMIT :most FOR UPDATE OF w SKIP LOCKED) old
    WHERE h.name = old.name
""")

_INSTANCES = text("""
    DELETE FROM instances i
    USING (SELECT instance FROM instances WHERE seen_at < now() - interval '1 hour'
           ORDER BY instance LIMIT :most FOR UPDATE SKIP LOCKED) gone
    WHERE i.instance = gone.instance
""")

_TARGETS = text("""
    DELETE FROM metrics_targets t
    USING (SELECT address FROM metrics_targets WHERE seen_at < now() - interval '1 hour'
           ORDER BY address LIMIT :most FOR UPDATE SKIP LOCKED) gone
    WHERE t.address = gone.address
""")

# Keep outages longer than any deadline that they may have to move.
_GAPS = text("""
    DELETE FROM gaps g
    USING (SELECT gap_id FROM gaps WHERE ended_at < now() - interval '30 days'
           ORDER BY ended_at LIMIT :most FOR UPDATE SKIP LOCKED) old
    WHERE g.gap_id = old.gap_id
""")


# A dry run that is being started elsewhere is locked and skipped.
_BULKS = sql("""
    WITH old AS MATERIALIZED (
        SELECT bulk_id FROM bulk_jobs
        WHERE (state = $BULK_PREPARED AND expires_at < now() - interval '1 minute')
           OR ended_at < now() - interval '30 days'
        ORDER BY bulk_id LIMIT :most FOR UPDATE SKIP LOCKED
    ), chunks AS (
        DELETE FROM bulk_chunks c USING old WHERE c.bulk_id = old.bulk_id
    )
    DELETE FROM bulk_jobs j USING old WHERE j.bulk_id = old.bulk_id
""")

# Keep the counts for a day after the run's end, for its late events.
_EVENT_COUNTS = text("""
    DELETE FROM run_event_counts c
    USING (SELECT w.run_id FROM run_event_counts w LEFT JOIN runs r ON r.run_id = w.run_id
           WHERE r.run_id IS NULL OR r.completed_at < now() - interval '1 day'
           ORDER BY w.run_id LIMIT :most FOR UPDATE OF w SKIP LOCKED) old
    WHERE c.run_id = old.run_id
""")

# Left behind by deletes of version N-1. Old runs are deleted first, so a look at the oldest blueprints finds them.
_BLUEPRINTS = text("""
    DELETE FROM run_blueprints b
    USING (SELECT o.run_id FROM (SELECT run_id FROM run_blueprints ORDER BY run_id LIMIT :most) o
           WHERE (SELECT r.run_id FROM runs r WHERE r.run_id = o.run_id) IS NULL) old
    WHERE b.run_id = old.run_id
""")

_SCRIPT_SYNCS = text("""
    DELETE FROM runner_script_syncs s
    USING (SELECT y.runner_id, y.script_name FROM runner_script_syncs y
           LEFT JOIN runners n ON n.runner_id = y.runner_id AND n.left_at IS NULL
           WHERE n.runner_id IS NULL AND y.queued_at < now() - interval '1 hour'
           ORDER BY y.runner_id, y.script_name LIMIT :most FOR UPDATE OF y SKIP LOCKED) old
    WHERE s.runner_id = old.runner_id AND s.script_name = old.script_name
""")


def upkeep(conn: Connection, *, idempotency_seconds: float = 86_400, limits: Limits = DEFAULT_LIMITS) -> bool:
    """Delete up to 1,000 rows of each kind that are not needed any more; return whether there are more. Safe to repeat.

    Kinds: idempotency keys past their time, demand profiles unused for a day, runners that left or are forgotten,
    their agents, heartbeats and addresses of instances older than an hour, outages older than 30 days, child results
    delivered a day ago, event counts of runs that ended a day ago, bulks that ended 30 days ago or were not started in
    time, blueprints without a run, scripts to fetch of runners that have left, holds of runs that have ended, events of
    deleted sessions.
    """
    removed = [
        conn.execute(_KEYS, {"age": idempotency_seconds, "most": MOST}).rowcount,
        conn.execute(_PROFILES, {"most": MOST}).rowcount,
        conn.execute(_RUNNERS, {"forget": limits.forget_runner, "most": MOST}).rowcount,
        conn.execute(_AGENTS, {"most": MOST}).rowcount,
        conn.execute(_CHILD_RESULTS, {"most": MOST}).rowcount,
        conn.execute(_HOLDS, {"most": MOST}).rowcount,
        conn.execute(_INSTANCES, {"most": MOST}).rowcount,
        conn.execute(_TARGETS, {"most": MOST}).rowcount,
        conn.execute(_GAPS, {"most": MOST}).rowcount,
        conn.execute(_EVENT_COUNTS, {"most": MOST}).rowcount,
        conn.execute(_BLUEPRINTS, {"most": MOST}).rowcount,
        conn.execute(_SCRIPT_SYNCS, {"most": MOST}).rowcount,
        MOST // BULKS * conn.execute(_BULKS, {"most": BULKS}).rowcount,
        purge_deleted(conn, MOST),
    ]
    return any(count >= MOST for count in removed)
