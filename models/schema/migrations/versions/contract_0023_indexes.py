"""Indexes: those go that 0020 to 0022 built smaller ones for."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

LARGER_ONES = ("ix_runs_owner", "ix_sessions_owner", "ix_runs_run_deadline")


def upgrade() -> None:
    """Drop them; no version names an index, and the conditions of all queries imply those of the smaller ones."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        for index in LARGER_ONES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.execute("CREATE INDEX ix_runs_owner ON runs (owner, created_at DESC, run_id DESC)")
    op.execute("CREATE INDEX ix_sessions_owner ON sessions (owner, created_at DESC, session_id DESC)")
    op.execute("CREATE INDEX ix_runs_run_deadline ON runs (run_deadline_at) WHERE status IN ('running', 'stopping')")
