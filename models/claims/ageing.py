from typing import Final

from models.schema.sql import sql
from models.state.unfinished import READY_AT

# Add one priority for every :ageing seconds since a run became ready, up to 100: from then on only older runs go before
# it. Within one priority the oldest goes first, so the heads of the priorities in use are enough. Each is found by one
# probe of the index, whatever waits behind it.
AGED_CANDIDATES: Final = sql(
    """
    WITH RECURSIVE asked AS (
        SELECT * FROM unnest(CAST(:profiles AS bigint[]), CAST(:lows AS smallint[]), CAST(:highs AS smallint[]),
                             CAST(:floors AS text[])) AS p(profile_id, low, high, floor)
    ), levels AS (
        SELECT p.profile_id, p.low, top.priority
        FROM asked p
        CROSS JOIN LATERAL (
            SELECT r.priority FROM runs r
            WHERE r.profile_id = p.profile_id AND r.priority BETWEEN p.low AND p.high
              AND r.status = $PENDING AND r.ready
            ORDER BY r.priority DESC, r.run_id LIMIT 1
        ) top
        WHERE p.floor IS NULL
        UNION ALL
        SELECT l.profile_id, l.low, next.priority
        FROM levels l
        CROSS JOIN LATERAL (
            SELECT r.priority FROM runs r
            WHERE r.profile_id = l.profile_id AND r.priority < l.priority AND r.priority >= l.low
              AND r.status = $PENDING AND r.ready
            ORDER BY r.priority DESC, r.run_id LIMIT 1
        ) next
    ), queues AS (
        SELECT profile_id, priority, '' AS floor FROM levels
        UNION ALL
        SELECT profile_id, low, floor FROM asked WHERE floor IS NOT NULL
    )
    SELECT c.run_id, c.profile_id, c.priority, c.not_for
    FROM queues q
    CROSS JOIN LATERAL (
        SELECT r.run_id, r.profile_id, r.priority, r.not_for,
            coalesce($ready_at, r.created_at) AS ready_at
        FROM runs r
        WHERE r.profile_id = q.profile_id AND r.priority = q.priority AND r.run_id >= q.floor
          AND r.status = $PENDING AND r.ready AND NOT r.run_id = ANY(CAST(:passed AS text[]))
        ORDER BY r.run_id LIMIT :most
    ) c
    ORDER BY least(100, c.priority + floor(greatest(0, extract(epoch FROM now() - c.ready_at))
                                           / CAST(:ageing AS float))) DESC,
        c.run_id
    LIMIT :most
    """,
    ready_at=READY_AT,
)
