"""Drains of runners: since when and why an administrator gives one no new run, and the capacity that it told."""

from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None

# A draining runner has capacity 0, which claims of version N-1 respect; drained_capacity keeps its own.
COLUMNS = """
SET LOCAL lock_timeout = '2s';
ALTER TABLE runners
    ADD COLUMN draining_since timestamptz,
    ADD COLUMN drain_reason text,
    ADD COLUMN drained_capacity integer;
"""


def upgrade() -> None:
    op.execute(COLUMNS)


def downgrade() -> None:
    op.execute("""
        UPDATE runners SET capacity = drained_capacity WHERE draining_since IS NOT NULL AND capacity = 0;
        ALTER TABLE runners DROP COLUMN draining_since, DROP COLUMN drain_reason, DROP COLUMN drained_capacity;
    """)
