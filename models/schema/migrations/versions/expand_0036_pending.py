"""Searches and counts: an index of the pending runs."""

from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None

PENDING = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_pending
ON runs (created_at DESC, run_id DESC)
INCLUDE (profile_id, ready, not_before, match_deadline_at, no_match_timeout_seconds)
WHERE status = 'pending'
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(PENDING)
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.execute("DROP INDEX ix_runs_pending")
