"""Expiry: an index of the runs that have a run deadline."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

TIMED = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_timed
ON runs (run_deadline_at) WHERE status IN ('running', 'stopping') AND run_deadline_at IS NOT NULL
"""


def upgrade() -> None:
    """Build it beside ix_runs_run_deadline, which has an entry of each running run, with a limit or without."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(TIMED)
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.execute("DROP INDEX ix_runs_timed")
