"""Searches: an index of the runs of each owner that failed or were stopped."""

from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None

UNSUCCESSFUL_OF_OWNER = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_unsuccessful_of_owner
ON runs (owner, status, created_at DESC, run_id DESC) WHERE status IN ('failed', 'stopped') AND owner IS NOT NULL
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(UNSUCCESSFUL_OF_OWNER)
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.execute("DROP INDEX ix_runs_unsuccessful_of_owner")
