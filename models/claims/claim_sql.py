from typing import Final

from models.schema.columns import names_of
from models.schema.sql import sql
from models.state.event_sql import RECORDED, run_updated_frame
from models.state.runs import RUN_COLUMNS, RUN_COLUMNS_OF_R

# Probe the index once per scan range, so that runs which these runners may not take cost nothing. The number of runs
# stands in a subquery: with a known one behind a backlog, a plan for it would seem cheaper than the kept plan, and the
# statement would be planned at each execution.
CANDIDATES: Final = """
    SELECT c.run_id, c.profile_id, c.priority, c.not_for
    FROM unnest((SELECT CAST(:profiles AS bigint[])), CAST(:lows AS smallint[]), CAST(:highs AS smallint[]),
                CAST(:floors AS text[])) AS p(profile_id, low, high, floor)
    CROSS JOIN LATERAL (
        (SELECT r.run_id, r.profile_id, r.priority, r.not_for FROM runs r
         WHERE p.floor IS NULL AND r.profile_id = p.profile_id AND r.priority BETWEEN p.low AND p.high
           AND r.status = $PENDING AND r.ready AND NOT r.run_id = ANY(CAST(:passed AS text[]))
         ORDER BY r.priority DESC, r.run_id LIMIT (SELECT CAST(:most AS bigint)))
        UNION ALL
        -- priority as an equality, so that the index scan begins at the floor
        (SELECT r.run_id, r.profile_id, r.priority, r.not_for FROM runs r
         WHERE r.profile_id = p.profile_id AND r.priority = p.low AND r.run_id >= p.floor
           AND r.status = $PENDING AND r.ready AND NOT r.run_id = ANY(CAST(:passed AS text[]))
         ORDER BY r.run_id LIMIT (SELECT CAST(:most AS bigint)))
    ) c
    ORDER BY c.priority DESC, c.run_id LIMIT (SELECT CAST(:most AS bigint))
"""

TAKEN_RUN: Final = names_of("t", RUN_COLUMNS)


def claimed(keys: str) -> str:
    """Return the CTEs that claim the runs of a CTE ``given`` and record their events in the order of its places.

    ``given`` has run_id, place, claim_token, claim_poll_id, runner_id, registration and claimed_by of locked runs; rows
    whose run could not be locked have no run_id, and keep the planner from expecting one row and comparing each row
    with each. ``keys`` is an array of the ids. CTE ``taken`` has the runs as they are then.
    """
    return sql(
        """taken AS (
            UPDATE runs r
            SET status = $CLAIMED, ready = false, claim_token = g.claim_token, claim_poll_id = g.claim_poll_id,
                runner_id = g.runner_id, registration = g.registration, claimed_by = g.claimed_by,
                claimed_by_registration = g.registration, claimed_at = clock_timestamp(),
                delivered_at = CASE WHEN :delivered THEN clock_timestamp() END,
                claim_deadline_at = clock_timestamp() + make_interval(secs =>
                    CASE WHEN :delivered THEN CAST(:start_timeout AS float) ELSE CAST(:claim_timeout AS float) END),
                unheld_beats = 0
            FROM given g
            WHERE r.run_id = g.run_id AND r.run_id = ANY($keys) AND coalesce(r.status = $PENDING AND r.ready, false)
            RETURNING g.place, $run,
                -- seconds since it was ready
                CAST(extract(epoch FROM r.claimed_at - r.match_deadline_at) AS float) + r.no_match_timeout_seconds
                    AS waited
        ), new_events AS (
            SELECT t.place, 'run_updated' AS kind, t.session_id, $frame AS frame, t.owner, t.run_id,
                CAST(NULL AS text) AS event_type
            FROM taken t
        ), $recorded""",
        keys=keys,
        run=RUN_COLUMNS_OF_R,
        frame=_FRAME,
        recorded=RECORDED,
    ).text


_FRAME: Final = run_updated_frame(
    run_id="t.run_id",
    session_id="t.session_id",
    status="t.status",
    runner_id="t.runner_id",
    attempt="t.attempt",
    error="t.error",
)
