"""The feed: the unique constraint that also held every event without a position goes; 0010 built what replaces it."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

NO_CONSTRAINT = """
SET LOCAL lock_timeout = '2s';
ALTER TABLE events DROP CONSTRAINT uq_events_feed_pos;
"""


def upgrade() -> None:
    op.execute(NO_CONSTRAINT)


def downgrade() -> None:
    op.execute("ALTER TABLE events ADD CONSTRAINT uq_events_feed_pos UNIQUE (feed_pos)")
