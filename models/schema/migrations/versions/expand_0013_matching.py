"""Matching: an index of ready runs by profile and patience, and of those that some registration may not have again."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Read for unmatched profiles only; NOT NULL keeps the index away from the claim, as it does ix_runs_match_deadline.
UNMATCHED = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_unmatched
ON runs (CAST(not_for IS NOT NULL AS integer), profile_id, no_match_timeout_seconds, match_deadline_at)
WHERE status = 'pending' AND ready AND match_deadline_at IS NOT NULL
"""


def upgrade() -> None:
    """Build it beside ix_runs_match_deadline, which version N-1 reads."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(UNMATCHED)
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.execute("DROP INDEX ix_runs_unmatched")
