"""Add the feed, whose numbering keeps its speed however long another transaction pins the xmin horizon."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The lock is taken in one statement and the rows are read in the next: in a VOLATILE function each statement has its
# own snapshot, so what the former holder numbered is seen. Called in autocommit, no client pause can hold the lock.
# Numbered events leave dead entries in the index of unnumbered ones, which a pinned horizon keeps there: a pass begins
# above `numbered_below`, below which all was numbered at least 20 s ago. No transaction of ours holds an event back for
# as long (idle 5 s, a statement 10 s); should one, lower_feed_floor finds it.
SEQUENCE_FEED = """
CREATE OR REPLACE FUNCTION sequence_feed(batch integer DEFAULT 1000) RETURNS integer
LANGUAGE plpgsql VOLATILE SET lock_timeout = '2s' AS $$
DECLARE
    head feed_head%ROWTYPE;
    numbered integer;
    highest bigint;
BEGIN
    SELECT * INTO STRICT head FROM feed_head FOR UPDATE;
    WITH unnumbered AS MATERIALIZED (
        SELECT id FROM events WHERE feed_pos IS NULL AND id > head.numbered_below ORDER BY id LIMIT batch FOR UPDATE
    ), placed AS (
        SELECT id, head.last_pos + row_number() OVER (ORDER BY id) AS pos FROM unnumbered
    ), done AS (
        UPDATE events SET feed_pos = placed.pos FROM placed WHERE events.id = placed.id RETURNING events.id
    )
    SELECT count(*), max(id) INTO numbered, highest FROM done;
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

FORMER_SEQUENCE_FEED = """
CREATE OR REPLACE FUNCTION sequence_feed(batch integer DEFAULT 1000) RETURNS integer
LANGUAGE plpgsql VOLATILE SET lock_timeout = '2s' AS $$
DECLARE
    head bigint;
    numbered integer;
BEGIN
    SELECT last_pos INTO STRICT head FROM feed_head FOR UPDATE;
    WITH unnumbered AS MATERIALIZED (
        SELECT id FROM events WHERE feed_pos IS NULL ORDER BY id LIMIT batch FOR UPDATE
    ), placed AS (
        SELECT id, head + row_number() OVER (ORDER BY id) AS pos FROM unnumbered
    ), done AS (
        UPDATE events SET feed_pos = placed.pos FROM placed WHERE events.id = placed.id RETURNING events.id
    )
    SELECT count(*) INTO numbered FROM done;
    IF numbered > 0 THEN
        UPDATE feed_head SET last_pos = last_pos + numbered;
    END IF;
    RETURN numbered;
END $$;
"""

FLOORS = """
SET LOCAL lock_timeout = '2s';
ALTER TABLE feed_head
    ADD COLUMN next_floor bigint DEFAULT '0' NOT NULL,
    ADD COLUMN floors_moved_at timestamptz DEFAULT now() NOT NULL;
"""


def upgrade() -> None:
    op.execute(FLOORS)
    op.execute(SEQUENCE_FEED)


def downgrade() -> None:
    op.execute(FORMER_SEQUENCE_FEED)
    op.execute("ALTER TABLE feed_head DROP COLUMN next_floor, DROP COLUMN floors_moved_at")
