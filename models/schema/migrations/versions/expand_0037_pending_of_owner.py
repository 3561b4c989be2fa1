"""Searches and counts: an index of the pending runs of each owner."""

from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

PENDING_OF_OWNER = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_pending_of_owner
ON runs (owner, created_at DESC, run_id DESC)
INCLUDE (profile_id, ready, not_before, match_deadline_at, no_match_timeout_seconds)
WHERE status = 'pending' AND owner IS NOT NULL
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(PENDING_OF_OWNER)
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.execute("DROP INDEX ix_runs_pending_of_owner")
