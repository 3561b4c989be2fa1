"""Bound on the stored events of a run (COORDINATOR_RUN_EVENTS_MAX), and the counts it needs.

Runs are counted only while there is a bound, in a table of their own: with the count in the run's row a batch of events
would lock what reports lock, in another order.
"""

from typing import Any, Final

# Store so many of these beyond the bound: they show a run's end and result.
NEEDED: Final = ("result", "run_start", "run_completed")
MOST_NEEDED: Final = 1000

# Finish the statement of ``append_events``. Batches that are stored at the same moment see the same count: a run may
# exceed the bound by what they hold. What was stored before counts once, and is not left out when it comes again.
# Events are looked up by scalar subqueries, which cannot become a hash of the whole table.
STORE_BOUNDED: Final = """
    , nth AS MATERIALIZED (
        SELECT j.*, (CAST(:types AS text[]))[j.place] AS event_type,
            coalesce(c.events, 0) + row_number() OVER (PARTITION BY j.run_id ORDER BY j.place) AS nth
        FROM judged j LEFT JOIN run_event_counts c ON c.run_id = j.run_id
        WHERE j.current
    ), sorted AS MATERIALIZED (
        SELECT nth.*, run_id IS NULL
            OR nth <= CAST(:most AS bigint)
                + CASE WHEN event_type = ANY(CAST(:needed AS text[])) THEN CAST(:most_needed AS bigint) ELSE 0 END
            OR (SELECT e.id FROM events e WHERE e.event_uid = nth.event_uid) IS NOT NULL AS kept
        FROM nth
    ), stored AS (
        INSERT INTO events (kind, session_id, frame, owner, run_id, event_type, event_uid)
        SELECT 'event', session_id, CAST((CAST(:frames AS text[]))[place] AS json), owner, run_id, event_type, event_uid
        FROM sorted WHERE kept ORDER BY place
        ON CONFLICT (event_uid) DO NOTHING RETURNING event_uid, id, run_id
    ), counted AS (
        INSERT INTO run_event_counts AS c (run_id, events)
        SELECT run_id, count(*) FROM stored WHERE run_id IS NOT NULL GROUP BY run_id ORDER BY run_id
        ON CONFLICT (run_id) DO UPDATE SET events = c.events + excluded.events
    ), told AS (
        INSERT INTO events (kind, session_id, frame, owner, run_id, event_type, event_uid)
        SELECT DISTINCT ON (run_id) 'event', session_id,
            json_build_object('data', json_build_object(
                'event_type', 'message', 'session_id', session_id,
                'timestamp', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
                'tool_name', NULL, 'tool_input', NULL, 'tool_output', NULL, 'error', NULL, 'exit_code', NULL,
                'reason', NULL, 'role', 'system', 'content', json_build_array(json_build_object(
                    'type', 'text', 'text', CAST(:notice AS text), 'notice', true)),
                'result_text', NULL, 'result_data', NULL)),
            owner, run_id, 'message', 'events-max:' || run_id
        FROM sorted
        WHERE NOT kept AND (SELECT e.id FROM events e WHERE e.event_uid = 'events-max:' || sorted.run_id) IS NULL
        ORDER BY run_id, place
        ON CONFLICT (event_uid) DO NOTHING
    )
    SELECT place, session_id, quiet, active_run, status, current, event_uid, coalesce(kept, true) AS kept, NULL AS id
    FROM judged LEFT JOIN (SELECT place, kept FROM sorted) s USING (place)
    UNION ALL
    SELECT NULL, NULL, NULL, NULL, NULL, NULL, event_uid, NULL, id FROM stored
"""


def bounds(most: int) -> dict[str, Any]:
    return {
        "most": most,
        "needed": list(NEEDED),
        "most_needed": MOST_NEEDED,
        "notice": f"[coordinator] Events of this run beyond {most} are not stored (COORDINATOR_RUN_EVENTS_MAX)",
    }
