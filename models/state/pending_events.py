"""Read the events that wait in batches for their positions (``unnumbered_batches``)."""

from string import Template
from typing import Final

# Search above the watermark only, as numbering does: a pinned horizon may keep many dead entries below it. Look at the
# sessions of a batch before its frames are unpacked.
_PENDING: Final = Template("""
    SELECT e.id, e.kind, e.session_id, e.owner, e.run_id, e.event_type, e.frame, b.created_at
    FROM feed_head h JOIN unnumbered_batches b ON b.first_id > h.numbered_below
    CROSS JOIN LATERAL unnest(b.ids, b.kinds, b.session_ids, b.owners, b.run_ids, b.event_types, b.frames)
        AS e(id, kind, session_id, owner, run_id, event_type, frame)
    WHERE $session = ANY(b.session_ids) AND e.session_id = $session
""")


def pending_events_of(session: str) -> str:
    """Return the query of the events of a session that wait in batches; ``session`` is the expression of its id.

    Read them in the statement that reads ``events``: numbering moves them from one table to the other.
    """
    return _PENDING.substitute(session=session)
