"""Lists: an index of the sessions that have an owner."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

OF_OWNER = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_sessions_of_owner
ON sessions (owner, created_at DESC, session_id DESC) WHERE owner IS NOT NULL
"""


def upgrade() -> None:
    """Build it beside ix_sessions_owner, as 0020 does for runs."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(OF_OWNER)
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.execute("DROP INDEX ix_sessions_of_owner")
