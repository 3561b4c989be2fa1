"""The feed: events are written in batches, and numbering inserts each of them once, with its position."""

from alembic import op

from models.schema.migrations.versions.expand_0009_numbering import SEQUENCE_FEED as FORMER_SEQUENCE_FEED

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

# Only a batch that can be numbered is accepted: one that could not would stop the feed for all. Frames are not
# compressed, which costs more time than the bytes that it saves. A batch below a page's size stays in its row.
# The file keeps its size: giving it back needs an exclusive lock, and the next batches fill it again.
BATCHES = """
CREATE TABLE unnumbered_batches (
    first_id bigint NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    ids bigint[] NOT NULL,
    kinds text[] NOT NULL,
    session_ids text[] NOT NULL,
    owners text[] NOT NULL,
    run_ids text[] NOT NULL,
    event_types text[] NOT NULL,
    frames json[] NOT NULL,
    CONSTRAINT pk_unnumbered_batches PRIMARY KEY (first_id),
    CONSTRAINT ck_unnumbered_batches_complete CHECK (
        first_id = ids[1] AND num_nulls(VARIADIC ids) = 0
        AND num_nulls(VARIADIC kinds) = 0 AND cardinality(kinds) = cardinality(ids)
        AND num_nulls(VARIADIC session_ids) = 0 AND cardinality(session_ids) = cardinality(ids)
        AND num_nulls(VARIADIC frames) = 0 AND cardinality(frames) = cardinality(ids)
        AND cardinality(owners) = cardinality(ids) AND cardinality(run_ids) = cardinality(ids)
        AND cardinality(event_types) = cardinality(ids))
) WITH (
    toast_tuple_target = 8160, vacuum_truncate = off, toast.vacuum_truncate = off,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_threshold = 2000000000,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 1000
);
ALTER TABLE unnumbered_batches ALTER COLUMN frames SET STORAGE EXTERNAL;
"""

# Our own events have no key of a client, so none is made for them. The constraint stays: the former version names it.
NO_KEY_NEEDED = "ALTER TABLE events ALTER COLUMN event_uid DROP NOT NULL"

# Events that clients post, and all events of the former version, are still rows of events without a position: both
# kinds are numbered in one order of ids, a batch by its first id and wholly or not at all. Two events of one session
# whose order matters are in this order: the second is given its id after the commit of the first, or after it in one
# transaction. Only this function removes batches, one call at a time, so their deletion waits for nothing. There are no
# useful statistics of a table that is filled and emptied all the time: the planner is told to walk along the index, and
# former servers would compile such a plan, whose cost is marked as prohibitive.
SEQUENCE_FEED = """
CREATE OR REPLACE FUNCTION sequence_feed(batch integer DEFAULT 1000) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '2s' SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off AS $$
DECLARE
    head feed_head%ROWTYPE;
    numbered integer;
    highest bigint;
BEGIN
    SELECT * INTO STRICT head FROM feed_head FOR UPDATE;
    WITH single AS MATERIALIZED (
        SELECT id, ctid AS place FROM events WHERE feed_pos IS NULL AND id > head.numbered_below
        ORDER BY id LIMIT batch FOR NO KEY UPDATE
    ), waiting AS MATERIALIZED (
        SELECT first_id, ctid AS place, cardinality(ids) AS events FROM unnumbered_batches
        WHERE first_id > head.numbered_below ORDER BY first_id LIMIT batch
    ), taken AS MATERIALIZED (
        SELECT * FROM (
            SELECT queue.*, sum(events) OVER (ORDER BY first_id) - events AS before FROM (
                SELECT first_id, place, events, true AS is_batch FROM waiting
                UNION ALL SELECT id, place, 1, false FROM single) queue) ordered
        WHERE before < batch
    ), emptied AS (
        DELETE FROM unnumbered_batches b USING taken WHERE b.ctid = taken.place AND taken.is_batch RETURNING b.*
    ), placed AS MATERIALIZED (
        SELECT event.*, head.last_pos + row_number() OVER (ORDER BY id) AS pos FROM (
            SELECT e.*, b.created_at, CAST(NULL AS tid) AS place
            FROM emptied b CROSS JOIN LATERAL
                unnest(b.ids, b.kinds, b.session_ids, b.owners, b.run_ids, b.event_types, b.frames)
                AS e(id, kind, session_id, owner, run_id, event_type, frame)
            UNION ALL
            SELECT first_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, place FROM taken WHERE NOT is_batch) event
    ), inserted AS (
        INSERT INTO events (id, feed_pos, kind, session_id, owner, run_id, event_type, frame, created_at)
        SELECT id, pos, kind, session_id, owner, run_id, event_type, frame, created_at
        FROM placed WHERE place IS NULL ORDER BY pos
    ), updated AS (
        UPDATE events SET feed_pos = placed.pos FROM placed WHERE events.ctid = placed.place
    )
    SELECT count(*), max(id) INTO numbered, highest FROM placed;
    IF numbered = 0 THEN
        RETURN 0;
    END IF;
    IF numbered < batch AND head.floors_moved_at < clock_timestamp() - interval '20 seconds' THEN
        UPDATE feed_head SET last_pos = last_pos + numbered, numbered_below = greatest(numbered_below, next_floor),
            next_floor = highest, floors_moved_at = clock_timestamp();
    ELSE
        UPDATE feed_head SET last_pos = last_pos + numbered;
    END IF;
    RETURN numbered;
END $$;
"""

TO_SINGLE_EVENTS = """
INSERT INTO events (id, kind, session_id, owner, run_id, event_type, frame, created_at, event_uid)
SELECT e.*, b.created_at, CAST(gen_random_uuid() AS text)
FROM unnumbered_batches b
CROSS JOIN LATERAL unnest(b.ids, b.kinds, b.session_ids, b.owners, b.run_ids, b.event_types, b.frames) e;
UPDATE events SET event_uid = CAST(gen_random_uuid() AS text) WHERE event_uid IS NULL;
"""


def upgrade() -> None:
    """Add the table, then the function that numbers both."""
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute(BATCHES)
    op.execute(NO_KEY_NEEDED)
    op.execute(SEQUENCE_FEED)


def downgrade() -> None:
    """Back to events that are updated, with those that wait in batches."""
    op.execute(FORMER_SEQUENCE_FEED)
    op.execute(TO_SINGLE_EVENTS)
    op.execute("ALTER TABLE events ALTER COLUMN event_uid SET NOT NULL")
    op.execute("DROP TABLE unnumbered_batches")
