"""The feed: an index of positions that does not hold the events that have none yet."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

POSITIONS = """
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS uq_events_position ON events (feed_pos) WHERE feed_pos IS NOT NULL
"""


def upgrade() -> None:
    """Build the index beside the one it replaces, while reads and writes go on."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(POSITIONS)
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.execute("DROP INDEX uq_events_position")
