"""Lists: an index of the runs that have an owner."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

OF_OWNER = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_of_owner
ON runs (owner, created_at DESC, run_id DESC) WHERE owner IS NOT NULL
"""


def upgrade() -> None:
    """Build it beside ix_runs_owner, in which every update of a run without an owner adds an entry, too."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(OF_OWNER)
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.execute("DROP INDEX ix_runs_of_owner")
