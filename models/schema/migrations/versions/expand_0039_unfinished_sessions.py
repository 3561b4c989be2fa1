"""Lists of sessions: an index of those that have not finished."""

from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None

UNFINISHED_SESSIONS = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_sessions_unfinished
ON sessions (status, created_at DESC, session_id DESC) WHERE status <> 'finished'
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(UNFINISHED_SESSIONS)
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.execute("DROP INDEX ix_sessions_unfinished")
