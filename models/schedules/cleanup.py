from typing import Final

from sqlalchemy import Connection

from models.schema.sql import sql

MOST: Final = 1000

# Keep fires that wait, and those whose run is unfinished: overlap looks at them.
_RETIRE: Final = sql("""
    DELETE FROM schedule_fires f
    USING (SELECT w.schedule_no, w.fire_at, w.kind FROM schedule_fires w
           WHERE w.decided_at < now() - make_interval(secs => :age)
             AND NOT (EXISTS (SELECT 1 FROM schedules s WHERE s.schedule_no = w.schedule_no)
                      AND (w.outcome = $FIRE_BUFFERED
                           OR EXISTS (SELECT 1 FROM runs r WHERE r.run_id = w.run_id AND r.status IN $UNFINISHED)))
           ORDER BY w.decided_at LIMIT :most FOR UPDATE OF w SKIP LOCKED) old
    WHERE f.schedule_no = old.schedule_no AND f.fire_at = old.fire_at AND f.kind = old.kind
""")


def retire_fires(conn: Connection, *, older_than_days: float, most: int = MOST) -> int:
    """Drop the oldest decisions of schedules, also of deleted ones; return how many. Safe to repeat."""
    return conn.execute(_RETIRE, {"age": older_than_days * 86_400.0, "most": most}).rowcount
