"""Searches: an index of the runs that failed or were stopped."""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

UNSUCCESSFUL = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_unsuccessful
ON runs (status, created_at DESC, run_id DESC) WHERE status IN ('failed', 'stopped')
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(UNSUCCESSFUL)
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.execute("DROP INDEX ix_runs_unsuccessful")
