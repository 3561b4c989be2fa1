"""Searches: an index of the ends of runs."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

ENDED = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_ended
ON runs (completed_at DESC, run_id DESC) WHERE completed_at IS NOT NULL
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(ENDED)
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.execute("DROP INDEX ix_runs_ended")
