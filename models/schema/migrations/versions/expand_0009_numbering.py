"""The feed: numbering finds what it has locked by its place."""

from alembic import op

from models.schema.migrations.versions.expand_0002_feed import SEQUENCE_FEED as FORMER_SEQUENCE_FEED
from models.schema.migrations.versions.expand_0008_numbering import IN_ORDER

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# What is locked stays where it is, so its ctid finds it without another descent of the primary key. A delete conflicts
# with this lock as with FOR UPDATE; nothing but this function updates events.
SEQUENCE_FEED = """
CREATE OR REPLACE FUNCTION sequence_feed(batch integer DEFAULT 1000) RETURNS integer
LANGUAGE plpgsql VOLATILE SET lock_timeout = '2s' SET enable_bitmapscan = off AS $$
DECLARE
    head feed_head%ROWTYPE;
    numbered integer;
    highest bigint;
BEGIN
    SELECT * INTO STRICT head FROM feed_head FOR UPDATE;
    WITH unnumbered AS MATERIALIZED (
        SELECT id, ctid AS place FROM events WHERE feed_pos IS NULL AND id > head.numbered_below
        ORDER BY id LIMIT batch FOR NO KEY UPDATE
    ), placed AS (
        SELECT place, head.last_pos + row_number() OVER (ORDER BY id) AS pos FROM unnumbered
    ), done AS (
        UPDATE events SET feed_pos = placed.pos FROM placed WHERE events.ctid = placed.place RETURNING events.id
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


def upgrade() -> None:
    op.execute(SEQUENCE_FEED)


def downgrade() -> None:
    op.execute(FORMER_SEQUENCE_FEED)
    op.execute(IN_ORDER)
