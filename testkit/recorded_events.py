"""All committed events, with and without positions, as a table to read in SQL."""

from typing import Final

RECORDED_EVENTS: Final = """(
    SELECT id, feed_pos, kind, session_id, owner, run_id, event_type, frame, created_at FROM events
    UNION ALL
    SELECT e.id, NULL, e.kind, e.session_id, e.owner, e.run_id, e.event_type, e.frame, b.created_at
    FROM unnumbered_batches b
    CROSS JOIN LATERAL unnest(b.ids, b.kinds, b.session_ids, b.owners, b.run_ids, b.event_types, b.frames)
        AS e(id, kind, session_id, owner, run_id, event_type, frame)
) AS recorded_events"""
