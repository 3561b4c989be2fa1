from collections.abc import Sequence

from sqlalchemy import Connection, text

from models.core.statuses import ExecutionMode, RunType
from models.schema.sql import sql
from models.state.locked_rows import LockedRun

# Require the session that existed when the child was submitted, not one that took its id later. Copy the whole frame,
# not its parts: Postgres refuses to unescape a NUL that some result may hold.
_KEEP = sql("""
    INSERT INTO child_results
        (child_run_id, child_session_id, parent_session_id, parent_incarnation, outcome, body, body_bytes)
    SELECT r.run_id, r.session_id, r.parent_session_id, p.incarnation, r.status, told.body,
        octet_length(CAST(told.body AS text))
    FROM runs r
    JOIN sessions p ON p.session_id = r.parent_session_id AND p.created_at <= r.created_at
        AND p.owner IS NOT DISTINCT FROM r.owner
    LEFT JOIN LATERAL (
        SELECT e.frame FROM events e
        WHERE e.session_id = r.session_id AND e.event_type = 'result' AND e.kind = 'event' AND e.run_id = r.run_id
          AND r.status = $COMPLETED
        ORDER BY e.id DESC LIMIT 1
    ) result ON true
    CROSS JOIN LATERAL (
        SELECT CASE WHEN r.status = $COMPLETED THEN coalesce(result.frame, CAST('{}' AS json))
                    ELSE json_build_object('error', r.error) END AS body
    ) told
    WHERE r.run_id = ANY(CAST(:runs AS text[]))
    ON CONFLICT (child_run_id) DO NOTHING
""")

_GIVE_BACK = text("""
    UPDATE child_results SET delivered_in = NULL, returned_at = clock_timestamp()
    WHERE delivered_in = ANY(CAST(:runs AS text[]))
""")


def calls_back(run: LockedRun) -> bool:
    called = run.execution_mode == ExecutionMode.ASYNC_CALLBACK and run.parent_session_id is not None
    return called and run.parent_session_id != run.session_id


def store_child_results(conn: Connection, ended: Sequence[LockedRun]) -> None:
    """Store results of ended runs for their parents; results of a resume that never started wait again.

    Call it in the transaction that ends the runs and holds their sessions locked; parents are neither locked nor waited
    for. A parent that is gone, or another owner's, gets nothing. Safe to repeat.
    """
    children = [run.run_id for run in ended if calls_back(run)]
    if children:
        conn.execute(_KEEP, {"runs": children})
    unbegun = [run.run_id for run in ended if run.type == RunType.RESUME and run.started_at is None]
    if unbegun:
        conn.execute(_GIVE_BACK, {"runs": unbegun})
